// Scans of rows as they are stored.
#include "bind.h"
#include "halves.h"

namespace nestvec::cuda {

void bind_halves(py::module_& m) {
  py::class_<HalfQueries>(m, "HalfQueries")
      .def(py::init([](const Buffer& halves, int64_t nq, int64_t stride, const Buffer& errors, const Buffer& steps) {
             need(stride >= 32 && stride % 32 == 0, "halves of queries must be filled up to a multiple of 32");
             return HalfQueries{halves.at<uint16_t>(nq * stride, "halves of queries"), nq, stride,
                                errors.at<float>(nq, "errors"), steps.at<float>(nq, "steps")};
           }),
           py::keep_alive<1, 2>(), py::keep_alive<1, 5>(), py::keep_alive<1, 6>());
  m.def("pack_halves", [](const Vectors& vectors, const HalfQueries& queries, const Buffer& multiply,
                          const Buffer& offset, uintptr_t stream) {
    need(vectors.nq == queries.nq && vectors.dims <= queries.stride, "halves of other queries");
    pack_halves(vectors, queries, multiply.at<double>(queries.nq, "multiply"), offset.at<double>(queries.nq, "offset"),
                stream_of(stream));
  });
  // A round of blocks of 64 rows: `Blocks`.
  m.def("scan_halves", [](const Vectors& vectors, const HalfQueries& queries, int64_t stride, int64_t skip,
                          const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
    need(vectors.nq == queries.nq && lists.nq == queries.nq && vectors.dims <= queries.stride &&
             queries.stride < vectors.dims + 32,
         "halves or lists of other queries");
    need(stride >= 1 && skip >= 0 && skip != 1, "blocks");
    scan_halves(vectors, queries, {vectors.n, stride, skip}, row_sets(allowed, queries.nq, step, vectors.n),
                lists.get(), stream_of(stream));
  });
}

}  // namespace nestvec::cuda
