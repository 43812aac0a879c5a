// Fixed dimensional encodings.
#include "bind.h"
#include "fde.h"

namespace nestvec::cuda {

namespace {

// Tokens of bags: those that `offsets` name lie between 0 and `tokens` once `base` is taken off, as the caller checked.
struct Bags {
  FdeBags bags;
  int64_t tokens;
};

Bags make_bags(const Buffer& offsets, int64_t first, int64_t n, int64_t base, int64_t tokens) {
  need(first >= 0 && n >= 0 && base >= 0 && tokens >= 0, "bags");
  return {{offsets.at<const int64_t>(n + 1, "offsets", first * int64_t(sizeof(int64_t))), n, base}, tokens};
}

FdeShape make_shape(int64_t repetitions, int k, int64_t width) {
  need(repetitions >= 1 && width >= 1 && k >= 0 && k <= 30, "shape of an encoding");
  return {repetitions, width, k};
}

struct Sketch {
  FdeSketch sketch;
  int64_t columns;
};

Sketch make_sketch(const Buffer& entries, const Buffer& starts, int64_t values, int64_t columns) {
  return {{entries.at<const int32_t>(values, "entries"), starts.at<const int64_t>(columns + 1, "starts")}, columns};
}

const float* rows_from(const Buffer& x, int64_t first, int64_t n, int64_t dims) {
  need(first >= 0 && dims >= 1, "tokens");
  return x.at<const float>(n * dims, "tokens", first * dims * int64_t(sizeof(float)));
}

void bind_tokens(py::module_& m) {
  m.def("simhash", [](const Buffer& x, int64_t first, int64_t n, int64_t dims, const Buffer& panels, double reach,
                      const FdeShape& shape, const Buffer& partitions, uintptr_t stream) {
    int64_t columns = shape.repetitions * shape.k;
    simhash(rows_from(x, first, n, dims), n, dims,
            panels.at<const float>(ceil_div<int64_t>(columns, 16) * 16 * dims, "panels"), reach, shape.repetitions,
            shape.k, partitions.at<uint32_t>(n * shape.repetitions, "partitions"), stream_of(stream));
  });
  m.def("centre_tokens", [](const Buffer& x, int64_t first, int64_t n, int64_t dims, const Buffer& mean,
                            const Buffer& out, const Buffer& beyond, uintptr_t stream) {
    centre_tokens(rows_from(x, first, n, dims), n, dims, mean.at<const float>(dims, "mean"),
                  out.at<float>(n * dims, "centred tokens"), beyond.at<int32_t>(1, "beyond"), stream_of(stream));
  });
  m.def("project_tokens", [](const Buffer& x, int64_t n, int64_t dims, const Buffer& panels, int64_t count,
                             const Buffer& out, uintptr_t stream) {
    project_tokens(rows_from(x, 0, n, dims), n, dims, panels.at<const float>(count * 16 * dims, "panels"), count,
                   out.at<float>(n * count * 16, "projected tokens"), stream_of(stream));
  });
}

void bind_bags(py::module_& m) {
  m.def("encode_bags", [](const Bags& bags, const FdeShape& shape, const Buffer& x, int64_t first, int64_t dims,
                          const Buffer& partitions, const py::object& ams, int mode, bool fill, size_t shared,
                          const Buffer& out, int64_t first_out, uintptr_t stream) {
    const Sketch* sketch = ams.is_none() ? nullptr : &ams.cast<const Sketch&>();
    need(!sketch || sketch->columns == shape.repetitions * shape.width, "columns of a sketch");
    int64_t step = sketch || dims == shape.width ? 0 : shape.width;
    need(sketch || (step ? dims >= shape.repetitions * step : dims == shape.width), "dims");
    need(mode >= 0 && mode <= 2 && first_out >= 0, "mode");
    int64_t size = shape.size();
    encode_bags({bags.bags, shape, rows_from(x, first, bags.tokens, dims), dims, step,
                 partitions.at<const uint32_t>(bags.tokens * shape.repetitions, "partitions"),
                 sketch ? sketch->sketch : FdeSketch{nullptr, nullptr}, FdeMode(mode), fill,
                 out.at<float>(bags.bags.n * size, "encodings", first_out * size * int64_t(sizeof(float)))},
                shared, stream_of(stream));
  });
  m.def("encode_probes", [](const Bags& bags, const FdeShape& shape, const Buffer& x, int64_t dims,
                            const Buffer& projected, int64_t stride, int64_t wide, const Buffer& shift, size_t shared,
                            const Buffer& out, int64_t first_out, uintptr_t stream) {
    need(wide >= shape.repetitions * shape.width && stride >= wide + shape.repetitions * shape.k, "projected tokens");
    need(first_out >= 0, "encodings");
    int64_t size = shape.size();
    encode_probes({bags.bags, shape, rows_from(x, 0, bags.tokens, dims), dims,
                   projected.at<const float>(bags.tokens * stride, "projected tokens"), stride, wide,
                   shift.at<const float>(wide, "shift"),
                   out.at<float>(bags.bags.n * size, "encodings", first_out * size * int64_t(sizeof(float)))},
                  shared, stream_of(stream));
  });
  m.def("sketch_rows", [](const Buffer& rows, int64_t n, int64_t size, const Sketch& sketch, const Buffer& out,
                          int64_t first_out, uintptr_t stream) {
    need(size >= 0 && first_out >= 0, "rows");
    sketch_rows(rows.at<const float>(n * size, "rows"), n, size, sketch.sketch, sketch.columns,
                out.at<float>(n * sketch.columns, "encodings", first_out * sketch.columns * int64_t(sizeof(float))),
                stream_of(stream));
  });
}

}  // namespace

void bind_fde(py::module_& m) {
  py::class_<FdeShape>(m, "FdeShape").def(py::init(&make_shape));
  py::class_<Bags>(m, "FdeBags").def(py::init(&make_bags), py::keep_alive<1, 2>());
  py::class_<Sketch>(m, "FdeSketch").def(py::init(&make_sketch), py::keep_alive<1, 2>(), py::keep_alive<1, 3>());
  bind_tokens(m);
  bind_bags(m);
}

}  // namespace nestvec::cuda
