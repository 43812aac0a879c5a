// Python module `_core`: one submodule per instruction set this machine supports, each with every kernel of the table.
#include "bind.h"
#include "cpu.h"
#include "isas.h"  // made by CMake: NESTVEC_ISAS(X) is X(name) for every variant built

namespace nestvec {
#define NESTVEC_DECLARE(name) extern const Kernels kernels_##name;
NESTVEC_ISAS(NESTVEC_DECLARE)

namespace {

Plane plane_of(const Array<uint8_t>& codes, const Array<int64_t>& starts, const Array<int64_t>& bounds,
               const Array<float>& stats, const Array<float>& blocks, int64_t last) {
  Plane p{codes.data(), starts.data(), stats.data(), blocks.data(), starts.size(), stats.shape(1)};
  need(stats.shape(0) == 3 * p.stored && blocks.shape(0) == 2 * p.stored, "stats and blocks must fit starts");
  need(p.capacity % 64 == 0 && blocks.shape(1) * 64 == p.capacity, "capacity must be whole blocks of 64 rows");
  need(last <= p.capacity && bounds.size() >= 1 && bounds.size() <= p.stored, "rows or levels exceed the plane");
  for (int64_t l = 0; l < bounds.size(); l++) {
    int64_t width = (bounds.data()[l] - (l ? bounds.data()[l - 1] : 0) + 3) / 4 * 4;
    // a matrix multiplication may read up to 15 lines past a level
    need(width > 0 && p.starts[l] >= 0 && p.starts[l] + p.capacity * width + 1024 <= codes.size(),
         "codes is smaller than its levels");
  }
  return p;
}

Allowed allowed_of(const Array<uint64_t>& allowed, int64_t queries, int64_t last) {
  need(allowed.ndim() == 2 && (allowed.shape(0) <= 1 || allowed.shape(0) == queries),
       "allowed must be one set of rows, or one per query");
  if (allowed.shape(0) == 0) return {};
  need(allowed.shape(1) * 64 >= last, "allowed must have a bit for every row");
  return {allowed.data(), allowed.shape(0) > 1 ? allowed.shape(1) : 0};
}

QueryBatch batch_of(const Array<int8_t>& codes, const Array<int32_t>& sums, const Array<float>& stats,
                    const Array<float>& thresholds, const Array<int64_t>& bounds, int metric, int64_t n) {
  QueryBatch q{codes.data(),
               sums.data(),
               stats.data(),
               thresholds.data(),
               bounds.data(),
               n,
               codes.shape(0),
               codes.shape(1),
               bounds.size(),
               metric,
               {}};
  need(n <= q.padded && q.padded % 32 == 0 && sums.size() == q.levels * q.padded && thresholds.size() == q.padded,
       "queries must be padded to a multiple of 32");
  need(stats.shape(0) == 3 * q.levels + 1 && stats.shape(1) == q.padded, "query stats must fit the levels");
  int64_t width = 0;
  for (int64_t l = 0; l < q.levels; l++) width += (q.bounds[l] - (l ? q.bounds[l - 1] : 0) + 63) / 64 * 64;
  need(q.stride >= width, "query codes are narrower than their levels");
  return q;
}

Candidates candidates_of(Array<int32_t>& rows, Array<float>& upper, Array<int64_t>& counts) {
  need(rows.ndim() == 2 && upper.ndim() == 2 && rows.shape(0) == upper.shape(0) && rows.shape(1) == upper.shape(1) &&
           counts.size() == rows.shape(0),
       "rows, upper and counts must have one shape");
  return {output(rows), output(upper), output(counts), rows.shape(1)};
}

Queries queries_of(const Array<double>& q, int64_t dims, int metric) {
  need(q.ndim() == 2 && q.shape(1) >= dims, "queries have fewer dims than asked for");
  return {q.data(), q.shape(0), q.shape(1), metric};
}

template <class T>
Rows rows_of(const py::array_t<T>& rows, int64_t dims, const Array<int64_t>& ids, int64_t base) {
  constexpr int64_t size = sizeof(T);
  need(rows.ndim() == 2 && dims >= 1 && rows.shape(1) >= dims, "rows have fewer dims than asked for");
  need(rows.size() == 0 || ((rows.shape(1) == 1 || rows.strides(1) == size) && rows.strides(0) % size == 0),
       "rows must be contiguous");
  need(ids.size() == 0 || ids.size() >= rows.shape(0), "ids are fewer than rows");
  return {rows.data(), rows.strides(0) / size, rows.shape(0), dims, ids.size() ? ids.data() : nullptr, base};
}

Best best_of(Array<double>& scores, Array<int64_t>& ids, int64_t queries) {
  need(scores.ndim() == 2 && ids.ndim() == 2 && scores.shape(0) == queries && ids.shape(0) == queries &&
           scores.shape(1) == ids.shape(1) && scores.shape(1) >= 1,
       "best scores and ids must be (nq, k)");
  return {output(scores), output(ids), scores.shape(1)};
}

template <class T>
void bind_exact(py::module_& m, Scores& scores, TopK& topk, ListRows& list, Rescore& rescore,
                const std::string& suffix) {
  m.def(("scores_" + suffix).c_str(),
        [&scores](const Array<double>& q, const py::array_t<T>& rows, int64_t dims, int metric, Array<float>& out) {
          Queries queries = queries_of(q, dims, metric);
          Rows all = rows_of<T>(rows, dims, Array<int64_t>(0), 0);
          need(out.size() == queries.n * all.n, "out must be (nq, n)");
          float* target = output(out);
          py::gil_scoped_release release;
          scores(queries, all, target);
        },
        py::arg("q").noconvert(), py::arg("rows").noconvert(), py::arg("dims"), py::arg("metric"),
        py::arg("out").noconvert());
  m.def(("topk_" + suffix).c_str(),
        [&topk](const Array<double>& q, const py::array_t<T>& rows, int64_t dims, int metric, const Array<int64_t>& ids,
                int64_t base, const Array<uint64_t>& allowed, Array<double>& best_scores, Array<int64_t>& best_ids) {
          Queries queries = queries_of(q, dims, metric);
          Rows all = rows_of<T>(rows, dims, ids, base);
          Allowed some = allowed_of(allowed, queries.n, all.n);
          Best best = best_of(best_scores, best_ids, queries.n);
          py::gil_scoped_release release;
          topk(queries, all, some, best);
        },
        py::arg("q").noconvert(), py::arg("rows").noconvert(), py::arg("dims"), py::arg("metric"),
        py::arg("ids").noconvert(), py::arg("base"), py::arg("allowed").noconvert(), py::arg("best_scores").noconvert(),
        py::arg("best_ids").noconvert());
  m.def(("list_" + suffix).c_str(),
        [&list](const Array<double>& q, const py::array_t<T>& rows, int64_t dims, int metric, const Array<int64_t>& ids,
                int64_t base, const Array<int32_t>& numbers, Array<double>& best_scores, Array<int64_t>& best_ids) {
          Queries query = queries_of(q, dims, metric);
          Rows all = rows_of<T>(rows, dims, ids, base);
          Best best = best_of(best_scores, best_ids, 1);
          need(query.n == 1, "rows are listed for one query");
          for (int64_t i = 0; i < numbers.size(); i++)
            need(numbers.data()[i] >= 0 && numbers.data()[i] < all.n, "numbers must be those of rows");
          py::gil_scoped_release release;
          list(query, all, numbers.data(), numbers.size(), best);
        },
        py::arg("q").noconvert(), py::arg("rows").noconvert(), py::arg("dims"), py::arg("metric"),
        py::arg("ids").noconvert(), py::arg("base"), py::arg("numbers").noconvert(), py::arg("best_scores").noconvert(),
        py::arg("best_ids").noconvert());
  m.def(("rescore_" + suffix).c_str(),
        [&rescore](const Array<double>& q, const py::array_t<T>& rows, int64_t dims, int metric,
                   const Array<int64_t>& ids, int64_t base, int64_t take, const Array<double>& multiply,
                   const Array<double>& offset, Array<float>& thresholds, Array<int32_t>& candidates,
                   Array<float>& upper, Array<int64_t>& counts, Array<double>& best_scores, Array<int64_t>& best_ids) {
          Queries queries = queries_of(q, dims, metric);
          Rows all = rows_of<T>(rows, dims, ids, base);
          Candidates listed = candidates_of(candidates, upper, counts);
          Best best = best_of(best_scores, best_ids, queries.n);
          need(multiply.size() >= queries.n && offset.size() >= queries.n && thresholds.size() >= queries.n &&
                   counts.size() >= queries.n,
               "one threshold and one list of candidates per query");
          Thresholds least{multiply.data(), offset.data(), output(thresholds)};
          py::gil_scoped_release release;
          return rescore(queries, all, take, least, listed, best);
        },
        py::arg("q").noconvert(), py::arg("rows").noconvert(), py::arg("dims"), py::arg("metric"),
        py::arg("ids").noconvert(), py::arg("base"), py::arg("take"), py::arg("multiply").noconvert(),
        py::arg("offset").noconvert(), py::arg("thresholds").noconvert(), py::arg("candidates").noconvert(),
        py::arg("upper").noconvert(), py::arg("counts").noconvert(), py::arg("best_scores").noconvert(),
        py::arg("best_ids").noconvert());
}

template <class From, class To>
void bind_convert(py::module_& m, const char* name, void (&convert)(const From*, To*, int64_t)) {
  m.def(
      name,
      [&convert](const Array<From>& source, Array<To>& target) {
        need(source.size() == target.size(), "source and target must have one size");
        const From* from = source.data();
        To* to = output(target);
        int64_t n = source.size();
        py::gil_scoped_release release;
        convert(from, to, n);
      },
      py::arg("source").noconvert(), py::arg("target").noconvert());
}

template <class T>
void bind_reduce(py::module_& m, const char* name, int64_t (&reduce)(const T*, int64_t)) {
  m.def(
      name,
      [&reduce](const Array<T>& values) {
        const T* from = values.data();
        int64_t n = values.size();
        py::gil_scoped_release release;
        return reduce(from, n);
      },
      py::arg("values").noconvert());
}

void bind_checksum(py::module_& m, const Kernels& k) {
  m.def(
      "crc32c",
      [&k](const Array<uint8_t>& data, uint32_t seed) {
        const uint8_t* from = data.data();
        int64_t n = data.size();
        py::gil_scoped_release release;
        return k.crc32c(from, n, seed);
      },
      py::arg("data").noconvert(), py::arg("seed"));
}

void bind_order(py::module_& m, const Kernels& k) {
  m.def(
      "order_best",
      [&k](Array<double>& scores, Array<int64_t>& ids, double sign, Array<float>& values) {
        int64_t n = scores.shape(0);
        Best best = best_of(scores, ids, n);
        need(values.size() == scores.size(), "values must be as many as scores");
        float* to = output(values);
        py::gil_scoped_release release;
        k.order_best(best, n, sign, to);
      },
      py::arg("scores").noconvert(), py::arg("ids").noconvert(), py::arg("sign"), py::arg("values").noconvert());
}

void bind_pack(py::module_& m, const Kernels& k) {
  m.def(
      "pack_rows",
      [&k](const Array<float>& x, const Array<int64_t>& bounds, const Array<int64_t>& starts, int64_t first,
           Array<uint8_t>& codes, Array<float>& stats, Array<float>& blocks) {
        Plane p = plane_of(codes, starts, bounds, stats, blocks, first + x.shape(0));
        need(x.ndim() == 2 && bounds.size() == p.stored && p.stored <= 32 && first >= 0 &&
                 x.shape(1) == bounds.data()[p.stored - 1],
             "rows must have the dims of the last of at most 32 levels");
        uint8_t* to = output(codes);
        float *to_stats = output(stats), *to_blocks = output(blocks);
        py::gil_scoped_release release;
        k.pack_rows(x.data(), x.shape(0), x.shape(1), bounds.data(), p.stored, starts.data(), first, to, to_stats,
                    to_blocks, p.capacity);
      },
      py::arg("x").noconvert(), py::arg("bounds").noconvert(), py::arg("starts").noconvert(), py::arg("first"),
      py::arg("codes").noconvert(), py::arg("stats").noconvert(), py::arg("blocks").noconvert());
  m.def(
      "pack_queries",
      [&k](const Array<float>& q, const Array<int64_t>& bounds, int metric, Array<int8_t>& codes, Array<int32_t>& sums,
           Array<float>& stats, Array<double>& multiply, Array<double>& offset) {
        int64_t n = q.shape(0), levels = bounds.size();
        need(q.ndim() == 2 && levels >= 1 && q.shape(1) >= bounds.data()[levels - 1],
             "queries have fewer dims than the last level");
        batch_of(codes, sums, stats, Array<float>(codes.shape(0)), bounds, metric, n);
        need(multiply.size() >= n && offset.size() >= n, "multiply and offset must be (nq,)");
        int8_t* to = output(codes);
        int32_t* to_sums = output(sums);
        float* to_stats = output(stats);
        double *to_multiply = output(multiply), *to_offset = output(offset);
        py::gil_scoped_release release;
        k.pack_queries(q.data(), n, q.shape(1), bounds.data(), levels, metric, to, codes.shape(1), to_sums, to_stats,
                       codes.shape(0), to_multiply, to_offset);
      },
      py::arg("q").noconvert(), py::arg("bounds").noconvert(), py::arg("metric"), py::arg("codes").noconvert(),
      py::arg("sums").noconvert(), py::arg("stats").noconvert(), py::arg("multiply").noconvert(),
      py::arg("offset").noconvert());
}

void bind_transform(py::module_& m, const Kernels& k) {
  m.def(
      "transform_rows",
      [&k](const Array<double>& x, const Array<float>& panels, Array<float>& out) {
        need(x.ndim() == 2 && panels.ndim() == 3 && out.ndim() == 2, "rows, panels of columns, and products");
        need(panels.shape(1) == x.shape(1) && panels.shape(2) == 16 && out.shape(0) == x.shape(0) &&
                 out.shape(1) == 16 * panels.shape(0),
             "panels must be as long as rows, and products have a value for each column");
        float* to = output(out);
        py::gil_scoped_release release;
        k.transform_rows(x.data(), x.shape(0), x.shape(1), panels.data(), panels.shape(0), to);
      },
      py::arg("x").noconvert(), py::arg("panels").noconvert(), py::arg("out").noconvert());
}

void bind_scan(py::module_& m, const Kernels& k) {
  m.def(
      "scan",
      [&k](const Array<uint8_t>& codes, const Array<int64_t>& starts, const Array<int64_t>& bounds,
           const Array<float>& stats, const Array<float>& blocks, const Array<int8_t>& query_codes,
           const Array<int32_t>& query_sums, const Array<float>& query_stats, const Array<float>& thresholds,
           int metric, int64_t check, int64_t first, int64_t last, const Array<uint64_t>& allowed, Array<int32_t>& rows,
           Array<float>& upper, Array<int64_t>& counts) {
        Plane p = plane_of(codes, starts, bounds, stats, blocks, last);
        QueryBatch q = batch_of(query_codes, query_sums, query_stats, thresholds, bounds, metric, counts.size());
        q.allowed = allowed_of(allowed, q.n, last);
        Candidates out = candidates_of(rows, upper, counts);
        need(first >= 0 && first % 64 == 0 && check >= 0, "first must be a block, check a level");
        py::gil_scoped_release release;
        return k.scan(p, q, check, first, last, out);
      },
      py::arg("codes").noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(),
      py::arg("stats").noconvert(), py::arg("blocks").noconvert(), py::arg("query_codes").noconvert(),
      py::arg("query_sums").noconvert(), py::arg("query_stats").noconvert(), py::arg("thresholds").noconvert(),
      py::arg("metric"), py::arg("check"), py::arg("first"), py::arg("last"), py::arg("allowed").noconvert(),
      py::arg("rows").noconvert(), py::arg("upper").noconvert(), py::arg("counts").noconvert());
}

void bind(py::module_& core, const char* name, const Kernels& k) {
  py::module_ m = core.def_submodule(name);
  bind_convert(m, "widen_f16", k.widen_f16);
  bind_convert(m, "widen_bf16", k.widen_bf16);
  bind_convert(m, "narrow_f16", k.narrow_f16);
  bind_convert(m, "narrow_bf16", k.narrow_bf16);
  bind_reduce(m, "first_nonfinite", k.first_nonfinite);
  bind_reduce(m, "sum_bytes", k.sum_bytes);
  bind_checksum(m, k);
  bind_pack(m, k);
  bind_scan(m, k);
  bind_transform(m, k);
  bind_order(m, k);
  bind_codes(m, k);
  bind_tokens(m, k);
  bind_maxsim(m, k);
  bind_exact<float>(m, k.scores_f32, k.topk_f32, k.list_f32, k.rescore_f32, "f32");
  bind_exact<uint16_t>(m, k.scores_f16, k.topk_f16, k.list_f16, k.rescore_f16, "f16");
  bind_exact<uint16_t>(m, k.scores_bf16, k.topk_bf16, k.list_bf16, k.rescore_bf16, "bf16");
}

bool supports_baseline() { return true; }

}  // namespace
}  // namespace nestvec

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  using namespace nestvec;
#define NESTVEC_BIND(name) \
  if (supports_##name()) bind(m, #name, kernels_##name);
  NESTVEC_ISAS(NESTVEC_BIND)
#define NESTVEC_NAME(name) #name " "
  m.attr("built") = NESTVEC_ISAS(NESTVEC_NAME);
  m.attr("compiler") = NESTVEC_COMPILER;
}
