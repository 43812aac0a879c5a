// The extension nestvec._cuda: memory of devices, streams, and what all searches share.
#include "bind.h"

#include <functional>

namespace nestvec::cuda {

namespace {

size_t bytes_of(const py::buffer_info& info) {
  Py_ssize_t expected = info.itemsize;
  for (auto i = info.ndim; i-- > 0; expected *= info.shape[i])
    need(info.shape[i] <= 1 || info.strides[i] == expected, "arrays to copy must be C-contiguous");
  return size_t(info.size * info.itemsize);
}

struct OwnStream {
  explicit OwnStream(int device) : stream(make_stream(device)) {}
  OwnStream(const OwnStream&) = delete;
  ~OwnStream() { drop_stream(stream); }
  const Stream stream;
};

void bind_memory(py::module_& m) {
  py::class_<Buffer>(m, "Buffer")
      .def(py::init<size_t, int, uintptr_t>())
      .def(py::init<uintptr_t, size_t, int, py::object>())
      .def("keep", &Buffer::keep)
      .def_readonly("bytes", &Buffer::bytes)
      .def_readonly("device", &Buffer::device)
      .def_property_readonly("pointer", [](const Buffer& b) { return reinterpret_cast<uintptr_t>(b.pointer()); })
      .def("read",
           [](const Buffer& b, int64_t offset, const py::buffer& into, uintptr_t stream) {
             auto info = into.request(true);
             size_t bytes = bytes_of(info);
             void* source = b.at<char>(int64_t(bytes), "bytes to read", offset);
             py::gil_scoped_release released;
             OnDevice here(b.device);
             to_host(info.ptr, source, bytes, stream_of(stream));
           })
      .def("write",
           [](const Buffer& b, int64_t offset, const py::buffer& from, uintptr_t stream) {
             auto info = from.request();
             size_t bytes = bytes_of(info);
             void* target = b.at<char>(int64_t(bytes), "bytes to write", offset);
             py::gil_scoped_release released;
             OnDevice here(b.device);
             to_device(target, info.ptr, bytes, stream_of(stream));
           })
      .def("fill", [](const Buffer& b, int byte, uintptr_t stream) {
        OnDevice here(b.device);
        clear(b.pointer(), byte, b.bytes, stream_of(stream));
      });
  m.def("device_count", device_count);
  m.def("current_device", current_device);
  m.def("use_device", use_device);
  m.def("free_bytes", free_bytes);
  m.def("device_of", [](uintptr_t pointer) { return device_of(reinterpret_cast<void*>(pointer)); });
  m.def("facts", [](int device) {
    auto found = facts(device);
    return py::dict(py::arg("name") = found.name, py::arg("capability") = py::make_tuple(found.major, found.minor),
                    py::arg("multiprocessors") = found.multiprocessors, py::arg("total") = found.total,
                    py::arg("shared") = found.shared);
  });
  py::class_<OwnStream>(m, "OwnStream").def(py::init<int>()).def_property_readonly("handle", [](const OwnStream& s) {
    return reinterpret_cast<uintptr_t>(s.stream);
  });
  m.def("wait_for", [](uintptr_t waiting, uintptr_t other) { wait_for(stream_of(waiting), stream_of(other)); });
  m.def("wait", [](uintptr_t stream) { wait(stream_of(stream)); }, py::call_guard<py::gil_scoped_release>());
}

void bind_lists(py::module_& m) {
  m.def("begin_lists", [](const ListBuffers& lists, float least, uintptr_t stream) {
    begin_lists(lists.get(), lists.nq, least, stream_of(stream));
  });
  m.def("keep_best", [](const ListBuffers& lists, int64_t keep, uintptr_t stream) {
    need(keep >= 1 && keep <= lists.room, "keep must be at least 1, and there must be room for as many");
    keep_best(lists.get(), lists.nq, keep, stream_of(stream));
  });
  m.def("order_lists", [](const ListBuffers& lists, int64_t k, const py::object& units, const py::object& offsets,
                          const py::object& ids, int64_t base, int64_t n, const Buffer& scores, const Buffer& found,
                          uintptr_t stream) {
    need(k >= 1 && k <= MOST_RESULTS, "k");
    order_lists(lists.get(), lists.nq, k, optional<const double>(units, lists.nq, "units"),
                optional<const double>(offsets, lists.nq, "offsets"), naming_of(ids, base, n),
                scores.at<double>(lists.nq * k, "scores"), found.at<int64_t>(lists.nq * k, "ids"), stream_of(stream));
  });
  py::class_<ListBuffers>(m, "Lists")
      .def(py::init([](const Buffer& rows, const Buffer& values, const Buffer& counts, const Buffer& thresholds,
                       const Buffer& lost, int64_t nq, int64_t room) {
             auto made = new ListBuffers{rows, values, counts, thresholds, lost, nq, room};
             made->get();
             return made;
           }),
           py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>(), py::keep_alive<1, 5>(),
           py::keep_alive<1, 6>());
  m.def("begin_best", [](const Buffer& scores, const Buffer& ids, int64_t nq, int64_t k, uintptr_t stream) {
    begin_best({scores.at<double>(nq * k, "scores"), ids.at<int64_t>(nq * k, "ids"), k}, nq, stream_of(stream));
  });
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const OutOfMemory& e) {
      PyErr_SetString(PyExc_MemoryError, e.what());
    }
  });
  m.attr("emulated") = is_emulated();
  m.attr("most_results") = MOST_RESULTS;
  bind_memory(m);
  bind_lists(m);
  bind_dlpack(m);
  bind_queries(m);
  bind_dense(m);
  bind_halves(m);
#ifdef NESTVEC_CUDA_PROBE
  bind_probe(m);
#endif
  bind_fde(m);
  bind_bits(m);
  bind_maxsim(m);
#ifdef NESTVEC_CUDA_EMULATED
  m.def("limit_memory", [](size_t bytes) { emulated::limit_memory(bytes); });
#endif
}

}  // namespace nestvec::cuda
