// Scans of coarse codes and exact scores of rows.
#include "bind.h"
#include "exact.h"
#include "scan.h"

namespace nestvec::cuda {

namespace {

// Codes of a plane; buffers are kept by whoever made it.
struct Plane {
  Codes codes;
};

Plane make_plane(int code, const Buffer& codes, const Buffer& starts, const Buffer& bounds, const py::object& stats,
                 const py::object& factors, int64_t levels, int64_t capacity, int64_t row_bytes) {
  need(capacity % 64 == 0 && levels >= 1, "capacity must be a multiple of 64");
  need(code >= B1 && code <= I8 && (code == I8 ? factors : stats).is_none(),
       "stats are of int8 codes, factors of others");
  return {{code, codes.at<const uint8_t>(capacity * row_bytes, "codes"), starts.at<const int64_t>(levels, "starts"),
           bounds.at<const int64_t>(levels, "bounds"), levels, capacity,
           optional<const float>(stats, 3 * levels * capacity, "stats"),
           optional<const uint16_t>(factors, 3 * levels * capacity, "factors")}};
}

struct Queries {
  CodedQueries coded;
};

Queries make_queries(const Buffer& codes, int64_t nq, int64_t stride, const py::object& sums, const py::object& stats,
                     int64_t padded, int64_t levels, const py::object& shifts, const py::object& lifts,
                     const py::object& digits) {
  need(stride % 64 == 0 && padded >= nq, "codes of queries must be filled up to a multiple of 64");
  return {{codes.at<const int8_t>(nq * stride, "codes of queries"), nq, stride,
           optional<const int32_t>(sums, levels * padded, "sums"),
           optional<const float>(stats, (3 * levels + 1) * padded, "stats of queries"), padded,
           optional<const int64_t>(shifts, nq, "shifts"), optional<const float>(lifts, nq, "lifts"),
           optional<const uint64_t>(digits, nq * DIGITS * (stride / 64), "digits of queries")}};
}

void refuse_unlike(const Plane& plane, const Queries& queries, int64_t levels, const ListBuffers& lists) {
  const auto& q = queries.coded;
  need(levels >= 1 && levels <= plane.codes.stored, "levels");
  need(q.shifts && q.lifts && (plane.codes.code != B1 || q.digits), "queries are not coded for these estimates");
  need(lists.nq == q.nq, "lists of other queries");
}

Blocks blocks_of(const Plane& plane, int64_t rows, int64_t stride, int64_t skip) {
  need(rows >= 0 && rows <= plane.codes.capacity, "rows beyond the plane");
  need(stride >= 1 && (skip == 0 || skip >= 2), "stride must be 1 or more, skip 0 or at least 2");
  return {rows, stride, skip};
}

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

void bind_scans(py::module_& m) {
  py::class_<Plane>(m, "Plane")
      .def(py::init(&make_plane), py::keep_alive<1, 3>(), py::keep_alive<1, 4>(), py::keep_alive<1, 5>(),
           py::keep_alive<1, 6>(), py::keep_alive<1, 7>());
  py::class_<Queries>(m, "Queries")
      .def(py::init(&make_queries), py::keep_alive<1, 2>(), py::keep_alive<1, 5>(), py::keep_alive<1, 6>(),
           py::keep_alive<1, 9>(), py::keep_alive<1, 10>(), py::keep_alive<1, 11>());
  m.def("scan_certified",
        [](const Plane& plane, const Queries& queries, int64_t levels, int metric, int64_t rows, int64_t stride,
           int64_t skip, const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
          const auto& q = queries.coded;
          need(levels >= 1 && levels <= plane.codes.stored && plane.codes.stats && q.sums && q.stats, "levels");
          need(lists.nq == q.nq, "lists of other queries");
          scan_certified(plane.codes, q, levels, metric, blocks_of(plane, rows, stride, skip),
                         row_sets(allowed, q.nq, step, rows), lists.get(), stream_of(stream));
        });
  m.def("scan_estimates",
        [](const Plane& plane, const Queries& queries, int64_t levels, int metric, int64_t rows, int64_t stride,
           int64_t skip, const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
          refuse_unlike(plane, queries, levels, lists);
          scan_estimates(plane.codes, queries.coded, levels, metric, blocks_of(plane, rows, stride, skip),
                         row_sets(allowed, queries.coded.nq, step, rows), lists.get(), stream_of(stream));
        });
  m.def("scan_lost", [](const Plane& plane, const Queries& queries, int64_t levels, int metric, int64_t rows,
                        int64_t keep, const py::object& allowed, int64_t step, const ListBuffers& lists,
                        uintptr_t stream) {
    refuse_unlike(plane, queries, levels, lists);
    blocks_of(plane, rows, 1, 0);
    need(keep >= 1 && (keep + SELECTORS <= lists.room || rows <= lists.room), "no room for what is kept and 256 rows");
    scan_lost(plane.codes, queries.coded, levels, metric, rows, keep, row_sets(allowed, queries.coded.nq, step, rows),
              lists.get(), stream_of(stream));
  });
  m.def("list_estimates", [](const Plane& plane, const Queries& queries, int64_t levels, int metric,
                             const ListBuffers& lists, uintptr_t stream) {
    refuse_unlike(plane, queries, levels, lists);
    list_estimates(plane.codes, queries.coded, levels, metric, lists.get(), stream_of(stream));
  });
}

}  // namespace

void bind_dense(py::module_& m) {
  bind_scans(m);
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
  m.def("rank_lists", [](const ListBuffers& lists, const Vectors& vectors, const py::object& ids, int64_t base,
                         int64_t n, int64_t shares, const Buffer& partial_scores, const Buffer& partial_ids,
                         const Buffer& scores, const Buffer& found, int64_t k, uintptr_t stream) {
    need(k >= 1 && k <= MOST_RESULTS && shares >= 1, "k");
    int64_t nq = lists.nq, parts = shares > 1 ? nq * shares * k : 0;
    rank_lists(lists.get(), vectors, naming_of(ids, base, n), shares,
               {partial_scores.at<double>(parts, "partial scores"), partial_ids.at<int64_t>(parts, "partial ids"), k},
               {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k}, nq, stream_of(stream));
  });
  m.def("list_best",
        [](const Buffer& scores, const Buffer& found, int64_t k, const ListBuffers& lists, uintptr_t stream) {
          need(k <= lists.room, "room for the best");
          list_best({scores.at<double>(lists.nq * k, "scores"), found.at<int64_t>(lists.nq * k, "ids"), k}, lists.get(),
                    lists.nq, stream_of(stream));
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
