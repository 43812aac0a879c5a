// Arrays from and for other libraries.
#include <pybind11/stl.h>

#include <vector>

#include "bind.h"
#include "convert.h"
#include "dlpack.h"

namespace nestvec::cuda {

namespace {

template <class M>
struct Named;
template <>
struct Named<dlpack::Managed> {
  static constexpr const char *fresh = "dltensor", *used = "used_dltensor";
};
template <>
struct Named<dlpack::Versioned> {
  static constexpr const char *fresh = "dltensor_versioned", *used = "used_dltensor_versioned";
};

// What an array is, and an object that lets go of it.
template <class M>
py::tuple take_over(const py::capsule& capsule) {
  auto managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), Named<M>::fresh));
  if (!managed) throw py::error_already_set();
  if constexpr (std::is_same_v<M, dlpack::Versioned>)
    need(managed->major == dlpack::MAJOR, "a capsule of another major version of DLPack");
  const dlpack::Tensor& t = managed->tensor;
  py::list shape, strides;
  for (int axis = 0; axis < t.axes; axis++) {
    shape.append(t.shape[axis]);
    if (t.strides) strides.append(t.strides[axis]);
  }
  if (PyCapsule_SetName(capsule.ptr(), Named<M>::used) != 0) throw py::error_already_set();
  py::capsule owner(managed, [](void* held) {
    auto managed = static_cast<M*>(held);
    if (managed->deleter) managed->deleter(managed);
  });
  return py::make_tuple(reinterpret_cast<uintptr_t>(t.data) + t.offset, t.device.type, t.device.number, t.type.code,
                        t.type.bits, t.type.lanes, py::tuple(shape),
                        t.strides ? py::object(py::tuple(strides)) : py::none(), owner);
}

// An array that somebody else holds. Memory is freed in the order of its own stream, which first waits for the
// reader's: legacy and per-thread streams are always there, any other may be gone by then.
template <class M>
struct Export {
  M managed = {};
  std::shared_ptr<Memory> memory;
  std::vector<int64_t> shape, strides;
  Stream reader;

  ~Export() {
    if (!memory->owned || reader == memory->stream) return;
    try {
      OnDevice here(memory->device);
      if (reinterpret_cast<uintptr_t>(reader) <= 2)
        wait_for(memory->stream, reader);
      else
        wait_for_all(memory->device);
    } catch (const std::runtime_error&) {  // the driver is gone: the process ends
    }
  }
};

template <class M>
py::capsule hand_out(const Buffer& buffer, const std::vector<int64_t>& shape, int code, int bits, uintptr_t reader) {
  auto made = std::make_unique<Export<M>>();
  made->memory = buffer.memory();
  made->reader = stream_of(reader == 1 ? 0 : reader);
  made->shape = shape;
  made->strides.resize(shape.size());
  int64_t step = 1;
  for (size_t axis = shape.size(); axis-- > 0; step *= shape[axis]) made->strides[axis] = step;
  buffer.at<char>(step * bits / 8, "elements");
  M& managed = made->managed;
  if constexpr (std::is_same_v<M, dlpack::Versioned>) {
    managed.major = dlpack::MAJOR;
    managed.minor = dlpack::MINOR;
  }
  managed.tensor = {buffer.pointer(),
                    {is_emulated() ? dlpack::CPU : dlpack::CUDA, is_emulated() ? 0 : buffer.device},
                    int32_t(shape.size()),
                    {uint8_t(code), uint8_t(bits), 1},
                    made->shape.data(),
                    made->strides.data(),
                    0};
  managed.context = made.get();
  managed.deleter = [](M* held) { delete static_cast<Export<M>*>(held->context); };
  py::capsule capsule(&made.release()->managed, Named<M>::fresh, [](PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, Named<M>::fresh)) return;  // somebody has taken it over
    auto managed = static_cast<M*>(PyCapsule_GetPointer(capsule, Named<M>::fresh));
    managed->deleter(managed);
  });
  return capsule;
}

}  // namespace

void bind_dlpack(py::module_& m) {
  m.def("take_over", [](const py::capsule& capsule) {
    bool versioned = PyCapsule_IsValid(capsule.ptr(), Named<dlpack::Versioned>::fresh);
    return versioned ? take_over<dlpack::Versioned>(capsule) : take_over<dlpack::Managed>(capsule);
  });
  m.def("hand_out", [](const Buffer& buffer, const std::vector<int64_t>& shape, int code, int bits, bool versioned,
                       uintptr_t reader) {
    return versioned ? hand_out<dlpack::Versioned>(buffer, shape, code, bits, reader)
                     : hand_out<dlpack::Managed>(buffer, shape, code, bits, reader);
  });
  m.def("copy_strided", [](uintptr_t pointer, const std::vector<int64_t>& shape, const std::vector<int64_t>& strides,
                           int item, const Buffer& target, uintptr_t stream) {
    need(shape.size() == strides.size() && shape.size() <= MOST_AXES, "arrays with strides have at most 8 axes");
    need(item == 1 || item == 2 || item == 4 || item == 8, "elements of 1, 2, 4 or 8 bytes");
    Strided from = {reinterpret_cast<const void*>(pointer), int(shape.size()), {}, {}, item};
    int64_t count = 1;
    for (size_t axis = 0; axis < shape.size(); count *= shape[axis++]) {
      from.shape[axis] = shape[axis];
      from.strides[axis] = strides[axis];
    }
    copy_strided(from, target.at<char>(count * item, "target"), stream_of(stream));
  });
}

}  // namespace nestvec::cuda
