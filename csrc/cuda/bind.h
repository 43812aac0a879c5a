// What bindings of device kernels share. Memory of a device is a Buffer, ours or somebody else's; sizes are checked
// here.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "best.h"

namespace py = pybind11;

namespace nestvec::cuda {

inline void need(bool condition, const char* what) {
  if (!condition) throw py::value_error(what);
}

inline Stream stream_of(uintptr_t handle) { return reinterpret_cast<Stream>(handle); }

// Memory of a device, freed in the order of its stream, or held for its owner. Nothing here needs the interpreter but
// what is `kept`: other libraries let go of memory on any thread.
struct Memory {
  void* pointer;
  size_t bytes;
  int device;
  Stream stream;
  bool owned;
  PyObject* kept = nullptr;  // let go of last: an owner, or what keeps the stream

  Memory(void* pointer, size_t bytes, int device, Stream stream, bool owned)
      : pointer(pointer), bytes(bytes), device(device), stream(stream), owned(owned) {}
  Memory(const Memory&) = delete;
  ~Memory() {
    if (owned) release(pointer, bytes, device, stream);
    if (!kept || !Py_IsInitialized()) return;
    py::gil_scoped_acquire acquired;
    Py_DECREF(kept);
  }
};

class Buffer {
 public:
  Buffer(size_t bytes, int device, uintptr_t stream)
      : bytes(bytes), device(device), memory_(own(bytes, device, stream_of(stream))) {}
  Buffer(uintptr_t pointer, size_t bytes, int device, const py::object& owner)
      : bytes(bytes),
        device(device),
        memory_(std::make_shared<Memory>(reinterpret_cast<void*>(pointer), bytes, device, nullptr, false)) {
    keep(owner);
  }
  Buffer(const Buffer&) = delete;

  void* pointer() const { return memory_->pointer; }
  std::shared_ptr<Memory> memory() const { return memory_; }
  void keep(const py::object& object) const {
    need(!memory_->kept, "a buffer keeps one object");
    memory_->kept = object.inc_ref().ptr();
  }

  // `count` elements from byte `offset` on.
  template <class T>
  T* at(int64_t count, const char* name, int64_t offset = 0) const {
    need(count >= 0 && offset >= 0 && size_t(offset) + size_t(count) * sizeof(T) <= bytes, name);
    return reinterpret_cast<T*>(static_cast<char*>(pointer()) + offset);
  }

  const size_t bytes;
  const int device;

 private:
  static std::shared_ptr<Memory> own(size_t bytes, int device, Stream stream) {
    OnDevice here(device);
    return std::make_shared<Memory>(allocate(bytes, device, stream), bytes, device, stream, true);
  }

  std::shared_ptr<Memory> memory_;
};

// A buffer or None.
template <class T>
T* optional(const py::object& buffer, int64_t count, const char* name) {
  return buffer.is_none() ? nullptr : buffer.cast<const Buffer&>().at<T>(count, name);
}

// nestvec.cuda.device.Lists
struct ListBuffers {
  const Buffer &rows, &values, &counts, &thresholds, &lost;
  int64_t nq, room;
  Lists get() const {
    return {rows.at<int32_t>(nq * room, "rows"), values.at<float>(nq * room, "values"),
            counts.at<int32_t>(nq, "counts"),    thresholds.at<float>(nq, "thresholds"),
            lost.at<int32_t>(nq, "lost"),        room};
  }
};

inline RowSets row_sets(const py::object& words, int64_t nq, int64_t step, int64_t n) {
  return {optional<const uint64_t>(words, (step ? nq - 1 : 0) * step + ceil_div<int64_t>(n, 64), "allowed"), step};
}

inline Naming naming_of(const py::object& ids, int64_t base, int64_t n) {
  return {optional<const int64_t>(ids, n, "ids"), base};
}

void bind_dlpack(py::module_&);
void bind_queries(py::module_&);
void bind_dense(py::module_&);   // bind_dense.cpp
void bind_probe(py::module_&);   // bind_probe.cpp
void bind_fde(py::module_&);     // bind_fde.cpp
void bind_bits(py::module_&);    // bind_bits.cpp
void bind_halves(py::module_&);  // bind_halves.cpp, after bind_dense
void bind_maxsim(py::module_&);  // bind_maxsim.cpp

}  // namespace nestvec::cuda
