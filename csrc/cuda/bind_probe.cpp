// What tests try kernels' building blocks by; in emulated builds, and where NESTVEC_CUDA_PROBE asks for it.
#include "bind.h"
#include "probe.h"

namespace nestvec::cuda {

void bind_probe(py::module_& m) {
  m.attr("probed") = PROBED;
  m.def("probe_warps", [](const Buffer& values, int by, int width, int limit, const Buffer& shuffled,
                          const Buffer& votes, uintptr_t stream) {
    probe_warps(values.at<int32_t>(PROBED, "values"), by, width, limit, shuffled.at<int32_t>(4 * PROBED, "shuffled"),
                votes.at<int32_t>(6 * PROBED, "votes"), stream_of(stream));
  });
  m.def("probe_barriers", [](const Buffer& values, int rounds, bool both, uintptr_t stream) {
    probe_barriers(values.at<int32_t>(PROBED, "values"), rounds, both, stream_of(stream));
  });
  m.def("probe_atomics", [](int blocks, const Buffer& cells, const Buffer& places, uintptr_t stream) {
    probe_atomics(blocks, cells.at<uint32_t>(4, "cells"), places.at<uint32_t>(int64_t(blocks) * PROBED, "places"),
                  stream_of(stream));
  });
  m.def("probe_mma", [](int product, const Buffer& a, const Buffer& b, const Buffer& c, uintptr_t stream) {
    need(product >= 0 && product <= 3, "product");
    probe_mma(Product(product), a.at<uint32_t>(128, "a"), b.at<uint32_t>(64, "b"), c.at<uint32_t>(128, "c"),
              stream_of(stream));
  });
#ifdef NESTVEC_CUDA_EMULATED
  m.def("probe_mistake", [](int mistake, const Buffer& values, uintptr_t stream) {
    need(mistake >= 0 && mistake <= int(Mistake::stack), "mistake");
    probe_mistake(Mistake(mistake), values.at<int32_t>(PROBED, "values"), stream_of(stream));
  });
#endif
}

}  // namespace nestvec::cuda
