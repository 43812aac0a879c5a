// Bindings of the kernels of MaxSim.
#include "bind.h"

namespace nestvec {
namespace {

void check_offsets(const Array<int64_t>& offsets, int64_t first, int64_t last, int64_t count) {
  need(offsets.ndim() == 1 && first >= 0 && first <= last && last < offsets.size(), "documents exceed their offsets");
  const int64_t* at = offsets.data();
  need(at[first] >= 0 && at[last] <= count, "offsets exceed the tokens");
  for (int64_t i = first; i < last; i++) need(at[i] <= at[i + 1], "offsets must ascend");
}

template <class T>
void bind_scores(py::module_& m, const char* name, MaxSim& maxsim) {
  m.def(
      name,
      [&maxsim](const Array<double>& q, const Array<int64_t>& q_offsets, const py::array_t<T>& tokens,
                const Array<float>& scales, const Array<int64_t>& offsets, const Array<int64_t>& docs,
                Array<uint8_t>& scratch, Array<double>& out) {
        constexpr int64_t size = sizeof(T);
        need(q.ndim() == 2 && tokens.ndim() == 2 && tokens.shape(1) == q.shape(1) && q.shape(1) >= 1,
             "tokens and queries must have the same dims");
        need(tokens.size() == 0 ||
                 ((tokens.shape(1) == 1 || tokens.strides(1) == size) && tokens.strides(0) % size == 0),
             "tokens must be contiguous");
        need(scales.size() == 0 || scales.size() == tokens.shape(0), "one scale per token");
        check_offsets(q_offsets, 0, q_offsets.size() - 1, q.shape(0));
        for (int64_t i = 0; i < docs.size(); i++) {
          need(docs.data()[i] >= 0, "documents exceed their offsets");
          check_offsets(offsets, docs.data()[i], docs.data()[i] + 1, tokens.shape(0));
        }
        int64_t padded = (q.shape(0) + 15) / 16 * 16;
        need(scratch.size() >= padded * 20 + (padded + 128) * q.shape(1) * 4, "scratch is too small");
        need(out.ndim() == 2 && out.shape(0) == q_offsets.size() - 1 && out.shape(1) == docs.size(),
             "out must be (queries, documents)");
        BagQueries queries{q.data(), q.shape(0), q_offsets.data(), out.shape(0)};
        Documents bags{tokens.data(), tokens.strides(0) / size, q.shape(1), scales.size() ? scales.data() : nullptr,
                       offsets.data()};
        uint8_t* room = output(scratch);
        double* to = output(out);
        py::gil_scoped_release release;
        return maxsim(queries, bags, docs.data(), docs.size(), room, to);
      },
      py::arg("q").noconvert(), py::arg("q_offsets").noconvert(), py::arg("tokens").noconvert(),
      py::arg("scales").noconvert(), py::arg("offsets").noconvert(), py::arg("docs").noconvert(),
      py::arg("scratch").noconvert(), py::arg("out").noconvert());
}

void bind_bags(py::module_& m, const Kernels& k) {
  m.def(
      "pack_bags",
      [&k](const Array<float>& x, const Array<int64_t>& offsets, Array<int8_t>& codes, Array<float>& scales,
           Array<int32_t>& sums, Array<float>& bounds) {
        need(x.ndim() == 2 && x.shape(1) >= 1 && codes.ndim() == 2 && codes.shape(1) == (x.shape(1) + 3) / 4 * 4,
             "codes must have the dims of x, rounded up to a multiple of 4");
        int64_t n = offsets.size() - 1, count = x.shape(0);
        check_offsets(offsets, 0, n, count);
        need(codes.shape(0) == count && scales.size() == count && sums.size() == count,
             "codes, scales and sums must fit x");
        need(bounds.ndim() == 2 && bounds.shape(0) == 2 && bounds.shape(1) == n, "bounds must be (2, documents)");
        int8_t* to = output(codes);
        float *to_scales = output(scales), *to_bounds = output(bounds);
        int32_t* to_sums = output(sums);
        py::gil_scoped_release release;
        k.pack_bags(x.data(), x.shape(1), offsets.data(), n, to, codes.shape(1), to_scales, to_sums, to_bounds);
      },
      py::arg("x").noconvert(), py::arg("offsets").noconvert(), py::arg("codes").noconvert(),
      py::arg("scales").noconvert(), py::arg("sums").noconvert(), py::arg("bounds").noconvert());
  m.def(
      "scan_bags",
      [&k](const Array<int8_t>& codes, const Array<float>& scales, const Array<int32_t>& sums,
           const Array<int64_t>& offsets, const Array<float>& bounds, const Array<uint8_t>& query_codes,
           const Array<float>& query_steps, const Array<int64_t>& query_panels, const Array<float>& query_bounds,
           int64_t first, int64_t last, const Array<uint8_t>& allowed, Array<float>& out) {
        need(codes.ndim() == 2 && codes.shape(1) % 4 == 0, "codes must have a multiple of 4 dims");
        int64_t width = codes.shape(1), panels = query_codes.shape(0), queries = query_panels.size() - 1;
        // a block of tokens is read as a whole, 16 of them, and the last one in steps of 64 bytes
        check_offsets(offsets, first, last, codes.shape(0) - 16 - (64 + width - 1) / width);
        need(scales.size() >= codes.shape(0) && sums.size() >= codes.shape(0), "scales and sums must fit codes");
        need(bounds.ndim() == 2 && bounds.shape(0) == 2 && bounds.shape(1) >= offsets.size() - 1,
             "bounds must be (2, documents)");
        need(
            query_codes.ndim() == 3 && query_codes.shape(1) * 4 == (width + 63) / 64 * 64 && query_codes.shape(2) == 64,
            "query codes must be (panels, lines, 64), lines a multiple of 16");
        need(query_steps.size() == 16 * panels, "query steps must be (panels, 16)");
        check_offsets(query_panels, 0, queries, panels);
        need(query_bounds.ndim() == 2 && query_bounds.shape(0) == 2 && query_bounds.shape(1) == queries,
             "query bounds must be (2, queries)");
        need(allowed.ndim() == 2, "allowed must be (0, 1 or queries, documents)");
        int64_t sets = allowed.shape(0);
        need(sets == 0 || ((sets == 1 || sets == queries) && allowed.shape(1) >= last),
             "allowed must be (0, 1 or queries, documents)");
        need(out.ndim() == 2 && out.shape(0) == queries && out.shape(1) == last - first,
             "out must be (queries, documents)");
        CodedBags bags{codes.data(), width, scales.data(), sums.data(), offsets.data(), bounds.data(), bounds.shape(1)};
        CodedBagQueries q{query_codes.data(),  query_codes.shape(1) * 64, query_steps.data(),
                          query_panels.data(), query_bounds.data(),       queries};
        DocumentSets some{sets ? allowed.data() : nullptr, sets > 1 ? allowed.shape(1) : 0};
        float* to = output(out);
        py::gil_scoped_release release;
        k.scan_bags(bags, q, first, last, some, to);
      },
      py::arg("codes").noconvert(), py::arg("scales").noconvert(), py::arg("sums").noconvert(),
      py::arg("offsets").noconvert(), py::arg("bounds").noconvert(), py::arg("query_codes").noconvert(),
      py::arg("query_steps").noconvert(), py::arg("query_panels").noconvert(), py::arg("query_bounds").noconvert(),
      py::arg("first"), py::arg("last"), py::arg("allowed").noconvert(), py::arg("out").noconvert());
}

}  // namespace

void bind_maxsim(py::module_& m, const Kernels& k) {
  bind_scores<float>(m, "maxsim_f32", k.maxsim_f32);
  bind_scores<uint16_t>(m, "maxsim_f16", k.maxsim_f16);
  bind_scores<uint16_t>(m, "maxsim_bf16", k.maxsim_bf16);
  bind_scores<int8_t>(m, "maxsim_i8", k.maxsim_i8);
  bind_bags(m, k);
}

}  // namespace nestvec
