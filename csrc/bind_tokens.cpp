// Bindings of the kernels over bags of tokens.
#include "bind.h"

namespace nestvec {
namespace {

// A table of a sketch is read once more than needed here: without branches, as it may be large.
void check_entries(const Array<int32_t>& entries, int64_t size) {
  const int32_t* at = entries.data();
  uint32_t beyond = 0;
  for (int64_t i = 0, n = entries.size(); i < n; i++) beyond |= uint32_t(size - 1) - uint32_t(at[i] & INT32_MAX);
  need(size <= INT32_MAX && beyond >> 31 == 0, "a sketch must stay within its target");
}

Bags bags_of(const Array<float>& x, const Array<int64_t>& offsets, const Array<uint32_t>& partitions, int64_t k,
             bool fill) {
  need(x.ndim() == 2 && partitions.ndim() == 2 && partitions.shape(0) == x.shape(0) && partitions.shape(1) >= 1 &&
           k >= 0 && k <= 30 && offsets.size() >= 1 && x.shape(0) <= INT32_MAX,
       "one row of partitions for each token");
  const int64_t* at = offsets.data();
  int64_t n = offsets.size() - 1;
  need(at[0] >= 0 && at[n] <= x.shape(0), "offsets must stay within the tokens");
  for (int64_t i = 0; i < n; i++)
    need(at[i] <= at[i + 1] - fill, "offsets must not descend, and what is filled needs a token");
  uint32_t all = 0;
  const uint32_t* part = partitions.data();
  for (int64_t i = 0, count = partitions.size(); i < count; i++) all |= part[i];
  need(all >> k == 0, "partitions must be below 2^k");
  return {x.data(), x.shape(1), at, n, partitions.data()};
}

Fde fde_of(const Bags& bags, int64_t repetitions, const Array<int32_t>& ams, const Array<int32_t>& final, int64_t k,
           const Array<float>& out) {
  Fde e{ams.size() ? ams.data() : nullptr,
        final.size() ? final.data() : nullptr,
        repetitions,
        int64_t(1) << k,
        0,
        0,
        0,
        0,
        false};
  need(out.ndim() == 2 && out.shape(0) == bags.n, "one row of out for each bag");
  e.size = out.shape(1);
  int64_t values = e.final ? final.size() : e.size, blocks = repetitions * e.parts;
  e.width = values / blocks;
  need(e.width >= 1 && values == blocks * e.width, "whole blocks for every partition of every repetition");
  if (!e.ams && e.width != bags.dims) e.step = e.width;
  need(e.ams ? ams.size() == repetitions * bags.dims : e.step == 0 || repetitions * e.width <= bags.dims,
       "blocks must be as wide as tokens, or as their parts for each repetition");
  check_entries(ams, e.width);
  check_entries(final, e.size);
  return e;
}

// What FdeScratch of csrc/kernels/fde.h lays out, in floats.
int64_t scratch_size(const Fde& e, int64_t d) {
  int64_t blocks = e.repetitions * e.parts, copies = (e.final ? 1 : 0) + (e.fill && e.ams ? 1 : 0);
  return blocks + copies * blocks * e.width + (e.fill ? 2 * e.parts : 0) +
         (e.ams ? 32 * (d + e.width + (e.width + 15) / 16 * 16) : 0);
}

void bind_fde(py::module_& m, const Kernels& k) {
  m.def(
      "simhash",
      [&k](const Array<float>& x, const Array<double>& gaussians, const Array<float>& panels, double reach,
           int64_t bits, Array<uint32_t>& partitions) {
        need(x.ndim() == 2 && partitions.ndim() == 2 && partitions.shape(0) == x.shape(0) && bits >= 0 && bits <= 30,
             "one row of partitions for each token, k from 0 to 30");
        int64_t d = x.shape(1), repetitions = partitions.shape(1), columns = repetitions * bits;
        need(gaussians.size() == columns * d && panels.size() >= (columns + 15) / 16 * 16 * d,
             "k columns for each repetition, as long as tokens");
        uint32_t* to = output(partitions);
        py::gil_scoped_release release;
        k.simhash(x.data(), x.shape(0), d, gaussians.data(), panels.data(), reach, repetitions, bits, to);
      },
      py::arg("x").noconvert(), py::arg("gaussians").noconvert(), py::arg("panels").noconvert(), py::arg("reach"),
      py::arg("k"), py::arg("partitions").noconvert());
  m.def(
      "encode_bags",
      [&k](const Array<float>& x, const Array<int64_t>& offsets, const Array<uint32_t>& partitions,
           const Array<int32_t>& ams, const Array<int32_t>& final, int64_t bits, int mode, bool fill,
           Array<float>& scratch, Array<float>& out) {
        Bags bags = bags_of(x, offsets, partitions, bits, fill);
        Fde e = fde_of(bags, partitions.shape(1), ams, final, bits, out);
        e.mode = mode, e.fill = fill;
        need(scratch.size() >= scratch_size(e, bags.dims) && reinterpret_cast<uintptr_t>(scratch.data()) % 8 == 0,
             "scratch is too small, or not aligned");
        float *some = output(scratch), *to = output(out);
        py::gil_scoped_release release;
        k.encode_bags(bags, e, some, to);
      },
      py::arg("x").noconvert(), py::arg("offsets").noconvert(), py::arg("partitions").noconvert(),
      py::arg("ams").noconvert(), py::arg("final").noconvert(), py::arg("k"), py::arg("mode"), py::arg("fill"),
      py::arg("scratch").noconvert(), py::arg("out").noconvert());
}

Bags projected_bags(const Array<float>& x, const Array<float>& projected, const Array<int64_t>& offsets, int64_t wide) {
  need(x.ndim() == 2 && projected.ndim() == 2 && projected.shape(0) == x.shape(0) && offsets.size() >= 1,
       "one row of projections for each token");
  const int64_t* at = offsets.data();
  int64_t n = offsets.size() - 1;
  need(at[0] >= 0 && at[n] <= x.shape(0), "offsets must stay within the tokens");
  for (int64_t i = 0; i < n; i++) need(at[i] <= at[i + 1], "offsets must not descend");
  return {x.data(), wide, at, n, nullptr};
}

void bind_fitted(py::module_& m, const Kernels& k) {
  m.def(
      "project_tokens",
      [&k](const Array<float>& x, const Array<float>& panels, Array<float>& out) {
        need(x.ndim() == 2 && panels.ndim() == 3 && out.ndim() == 2, "tokens, panels of columns, and products");
        need(panels.shape(1) == x.shape(1) && panels.shape(2) == 16 && out.shape(0) == x.shape(0) &&
                 out.shape(1) == 16 * panels.shape(0),
             "panels must be as long as tokens, and products have a value for each column");
        float* to = output(out);
        py::gil_scoped_release release;
        k.project_tokens(x.data(), x.shape(0), x.shape(1), panels.data(), panels.shape(0), to);
      },
      py::arg("x").noconvert(), py::arg("panels").noconvert(), py::arg("out").noconvert());
  m.def(
      "encode_probes",
      [&k](const Array<float>& x, const Array<float>& projected, const Array<int64_t>& offsets,
           const Array<float>& shift, const Array<int32_t>& final, int64_t repetitions, int64_t bits,
           Array<float>& scratch, Array<float>& out) {
        Bags bags = projected_bags(x, projected, offsets, shift.size());
        need(repetitions >= 1 && repetitions <= INT32_MAX && bits >= 0 && bits <= 30, "k from 0 to 30");
        Fde e = fde_of(bags, repetitions, Array<int32_t>(), final, bits, out);
        need(repetitions * e.width <= shift.size() && shift.size() + repetitions * bits <= projected.shape(1),
             "values and products with planes for each repetition");
        need(!e.final || scratch.size() >= final.size(), "scratch is too small");
        float *some = output(scratch), *to = output(out);
        ProbeQueries q{x.data(),     x.shape(1),   projected.data(), projected.shape(1),
                       shift.size(), bags.offsets, bags.n,           shift.data(),
                       bits};
        py::gil_scoped_release release;
        k.encode_probes(q, e, some, to);
      },
      py::arg("x").noconvert(), py::arg("projected").noconvert(), py::arg("offsets").noconvert(),
      py::arg("shift").noconvert(), py::arg("final").noconvert(), py::arg("repetitions"), py::arg("k"),
      py::arg("scratch").noconvert(), py::arg("out").noconvert());
}

}  // namespace

void bind_tokens(py::module_& m, const Kernels& k) {
  bind_fde(m, k);
  bind_fitted(m, k);
}

}  // namespace nestvec
