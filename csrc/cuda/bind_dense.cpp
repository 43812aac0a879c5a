// Scans of coarse codes and exact scores of rows.
#include "bind.h"
#include "exact.h"
#include "scan.h"

namespace nestvec::cuda {

namespace {

// Codes of a plane; buffers are kept by whoever made it.
struct Plane {
  Codes codes;
  size_t bytes;
  int64_t widest;
};

Plane make_plane(const Buffer& codes, const Buffer& starts, const Buffer& bounds, const py::object& stats,
                 const py::object& factors, int64_t levels, int64_t capacity) {
  need(capacity % 64 == 0 && levels >= 1, "capacity must be a multiple of 64");
  return {{codes.at<const uint8_t>(0, "codes"), starts.at<const int64_t>(levels, "starts"),
           bounds.at<const int64_t>(levels, "bounds"), levels, capacity,
           optional<const float>(stats, 3 * levels * capacity, "stats"),
           optional<const uint16_t>(factors, 3 * levels * capacity, "factors")},
          codes.bytes,
          0};
}

struct Queries {
  CodedQueries coded;
};

Queries make_queries(const Buffer& codes, int64_t nq, int64_t stride, const py::object& sums, const py::object& stats,
                     int64_t padded, int64_t levels, const py::object& shifts, const py::object& lifts) {
  need(stride % 64 == 0 && padded >= nq, "codes of queries must be filled up to a multiple of 64");
  return {{codes.at<const int8_t>(nq * stride, "codes of queries"), nq, stride,
           optional<const int32_t>(sums, levels * padded, "sums"),
           optional<const float>(stats, (3 * levels + 1) * padded, "stats of queries"), padded,
           optional<const int64_t>(shifts, nq, "shifts"), optional<const float>(lifts, nq, "lifts")}};
}

void refuse_other_lists(const ListBuffers& lists, int64_t nq) { need(lists.nq == nq, "lists of other queries"); }

Vectors make_vectors(const Buffer& queries, int64_t nq, int64_t query_stride, const Buffer& rows, int64_t n,
                     int64_t row_stride, int type, int64_t dims, int metric) {
  need(type >= 0 && type <= 2 && dims >= 1 && dims <= query_stride && dims <= row_stride, "dims");
  int64_t values = n ? (n - 1) * row_stride + dims : 0;  // the last row may end with what is compared
  if (type == 0)
    rows.at<float>(values, "rows");
  else
    rows.at<uint16_t>(values, "rows");
  return {queries.at<const float>(nq * query_stride, "queries"),
          query_stride,
          rows.pointer(),
          row_stride,
          type,
          dims,
          metric,
          nq,
          n};
}

}  // namespace

void bind_dense(py::module_& m) {
  py::class_<Plane>(m, "Plane")
      .def(py::init(&make_plane), py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>(),
           py::keep_alive<1, 5>(), py::keep_alive<1, 6>());
  py::class_<Queries>(m, "Queries")
      .def(py::init(&make_queries), py::keep_alive<1, 2>(), py::keep_alive<1, 5>(), py::keep_alive<1, 6>(),
           py::keep_alive<1, 9>(), py::keep_alive<1, 10>());
  m.def("scan_certified",
        [](const Plane& plane, const Queries& queries, int64_t levels, int metric, int64_t first, int64_t last,
           const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
          const auto& q = queries.coded;
          need(levels >= 1 && levels <= plane.codes.stored && plane.codes.stats && q.sums && q.stats, "levels");
          need(first % 64 == 0 && first >= 0 && last <= plane.codes.capacity, "rows beyond the plane");
          refuse_other_lists(lists, q.nq);
          scan_certified(plane.codes, q, levels, metric, {first, last}, row_sets(allowed, q.nq, step, last),
                         lists.get(), stream_of(stream));
        });
  m.def("scan_estimates",
        [](const Plane& plane, const Queries& queries, int64_t levels, int metric, int64_t first, int64_t last,
           const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
          const auto& q = queries.coded;
          need(levels >= 1 && levels <= plane.codes.stored && q.shifts && q.lifts, "levels");
          need(first % 64 == 0 && first >= 0 && last <= plane.codes.capacity, "rows beyond the plane");
          refuse_other_lists(lists, q.nq);
          scan_estimates(plane.codes, q, levels, metric, {first, last}, row_sets(allowed, q.nq, step, last),
                         lists.get(), stream_of(stream));
        });
  m.def("list_estimates", [](const Plane& plane, const Queries& queries, int64_t levels, int metric,
                             const ListBuffers& lists, uintptr_t stream) {
    const auto& q = queries.coded;
    need(levels >= 1 && levels <= plane.codes.stored && q.shifts && q.lifts, "levels");
    refuse_other_lists(lists, q.nq);
    list_estimates(plane.codes, q, levels, metric, lists.get(), stream_of(stream));
  });
  py::class_<Vectors>(m, "Vectors").def(py::init(&make_vectors), py::keep_alive<1, 2>(), py::keep_alive<1, 5>());
  m.def("rescore", [](const ListBuffers& lists, const Vectors& vectors, const py::object& multiply,
                      const py::object& offset, const py::object& ids, int64_t base, int64_t n, const Buffer& scores,
                      const Buffer& found, int64_t k, uintptr_t stream) {
    need(k >= 1 && k <= MOST_RESULTS, "k");
    int64_t nq = lists.nq;
    rescore(lists.get(), vectors,
            {optional<const double>(multiply, nq, "multiply"), optional<const double>(offset, nq, "offset")},
            naming_of(ids, base, n), {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k}, nq,
            stream_of(stream));
  });
  m.def("scores_of_rows", [](const Vectors& vectors, const Buffer& out, uintptr_t stream) {
    scores_of_rows(vectors, out.at<float>(vectors.nq * vectors.n, "scores"), stream_of(stream));
  });
  m.def("top_k_of_rows", [](const Vectors& vectors, const py::object& only, int64_t nq, int64_t n, int64_t shares,
                            const py::object& allowed, int64_t step, const py::object& ids, int64_t base,
                            const Buffer& partial_scores, const Buffer& partial_ids, const Buffer& scores,
                            const Buffer& found, int64_t k, uintptr_t stream) {
    need(k >= 1 && k <= MOST_RESULTS && shares >= 1, "k");
    Best partial = {partial_scores.at<double>(nq * shares * k, "partial scores"),
                    partial_ids.at<int64_t>(nq * shares * k, "partial ids"), k};
    top_k_of_rows(
        vectors,
        {optional<const int32_t>(only, nq, "only"), n, shares, row_sets(allowed, nq, step, n), naming_of(ids, base, n)},
        partial, {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k}, nq, stream_of(stream));
  });
}

}  // namespace nestvec::cuda
