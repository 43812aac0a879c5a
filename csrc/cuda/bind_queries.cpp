// Queries made ready on the device, and results made ready for the caller.
#include "bind.h"
#include "queries.h"

namespace nestvec::cuda {

namespace {

FloatQueries float_queries(const Buffer& values, int64_t nq, int64_t stride, int64_t dims) {
  need(dims >= 1 && dims <= stride, "dims of queries");
  return {values.at<const float>(nq * stride, "queries"), nq, stride};
}

Check check_of(const py::object& bad, int64_t n) { return {optional<int32_t>(bad, n + 1, "bad"), n}; }

void bind_convert(py::module_& m) {
  m.def("to_float32", [](const Buffer& source, int type, int64_t stride, int64_t n, int64_t dims, const Buffer& target,
                         const py::object& bad, uintptr_t stream) {
    need(type >= 0 && type <= int(Source::u64) && dims <= stride, "source");
    source.at<char>((n ? (n - 1) * stride + dims : 0) * bytes_of(Source(type)), "source");
    to_float32(source.pointer(), Source(type), stride, dims, target.at<float>(n * dims, "target"), check_of(bad, n),
               stream_of(stream));
  });
  m.def("to_results",
        [](const Buffer& scores, const Buffer& ids, int64_t nq, int64_t found, bool distances, const py::object& bad,
           int64_t first, const Buffer& out_scores, const Buffer& out_ids, int64_t k, uintptr_t stream) {
          need(found >= 1 && found <= k && first >= 0, "k");
          auto marks = optional<const int32_t>(bad, first + nq, "bad");
          to_results({scores.at<double>(nq * found, "scores"), ids.at<int64_t>(nq * found, "ids"), found}, nq,
                     distances, marks ? marks + first : nullptr,
                     {out_scores.at<float>(nq * k, "results", first * k * 4),
                      out_ids.at<int64_t>(nq * k, "results", first * k * 8), k},
                     stream_of(stream));
        });
}

void bind_coding(py::module_& m) {
  m.def("pack_queries", [](const Buffer& values, int64_t nq, int64_t stride, const Buffer& bounds, int64_t levels,
                           int64_t dims, int metric, const Buffer& codes, int64_t width, const Buffer& sums,
                           const Buffer& stats, int64_t padded, const Buffer& multiply, const Buffer& offset,
                           uintptr_t stream) {
    need(levels >= 1 && padded >= nq && width >= dims, "levels");
    pack_queries(float_queries(values, nq, stride, dims), bounds.at<const int64_t>(levels, "bounds"), levels, metric,
                 {codes.at<int8_t>(nq * width, "codes"), width, sums.at<int32_t>(levels * padded, "sums"),
                  stats.at<float>((3 * levels + 1) * padded, "stats"), multiply.at<double>(nq, "multiply"),
                  offset.at<double>(nq, "offset"), padded},
                 stream_of(stream));
  });
  m.def("encode_queries",
        [](const Buffer& values, int64_t nq, int64_t stride, double largest, double shift, int64_t dims, int64_t widest,
           int metric, const Buffer& bounds, int64_t levels, const py::object& center, const py::object& turned,
           const Buffer& codes, int64_t width, const Buffer& shifts, const Buffer& lifts, const Buffer& units,
           const Buffer& offsets, uintptr_t stream) {
          need(levels >= 1 && width >= dims && width % 64 == 0 && widest >= dims && widest <= stride, "dims");
          encode_queries(
              float_queries(values, nq, stride, dims),
              {largest, shift, dims, widest, metric, bounds.at<const int64_t>(levels, "bounds"), levels,
               optional<const double>(center, widest, "center"), optional<const double>(turned, nq * stride, "turned")},
              {codes.at<int8_t>(nq * width, "codes"), width, shifts.at<int64_t>(nq, "shifts"),
               lifts.at<float>(nq, "lifts"), units.at<double>(nq, "units"), offsets.at<double>(nq, "offsets")},
              stream_of(stream));
        });
  m.def("split_digits",
        [](const Buffer& codes, int64_t nq, int64_t width, int digits, const Buffer& words, uintptr_t stream) {
          need(width % 64 == 0 && digits >= 1 && digits <= 8, "digits");
          split_digits(codes.at<const int8_t>(nq * width, "codes"), nq, width, digits,
                       words.at<uint64_t>(nq * digits * (width / 64), "words"), stream_of(stream));
        });
}

void bind_maps(py::module_& m) {
  m.def("rotate", [](const Buffer& values, int64_t nq, int64_t stride, const Buffer& spans, int64_t count,
                     const Buffer& signs, const Buffer& scales, const Buffer& turned, uintptr_t stream) {
    rotate(float_queries(values, nq, stride, stride), stride,
           {spans.at<const Span>(count, "spans"), count, signs.at<const float>(0, "signs"),
            scales.at<const double>(count, "scales")},
           turned.at<double>(nq * stride, "turned"), stream_of(stream));
  });
  m.def("multiply_rows", [](const Buffer& values, int64_t n, int64_t d, const Buffer& panels, int64_t dims,
                            const Buffer& target, const py::object& bad, uintptr_t stream) {
    multiply_rows(float_queries(values, n, d, d), d,
                  panels.at<const float>(ceil_div<int64_t>(dims, 16) * d * 16, "panels"), dims,
                  target.at<float>(n * dims, "target"), check_of(bad, n), stream_of(stream));
  });
  m.def("take_columns", [](const Buffer& values, int64_t n, int64_t d, const Buffer& order, int64_t dims,
                           const Buffer& target, uintptr_t stream) {
    take_columns(float_queries(values, n, d, dims), order.at<const int32_t>(dims, "order"), dims,
                 target.at<float>(n * dims, "target"), stream_of(stream));
  });
}

}  // namespace

void bind_queries(py::module_& m) {
  bind_convert(m);
  bind_coding(m);
  bind_maps(m);
}

}  // namespace nestvec::cuda
