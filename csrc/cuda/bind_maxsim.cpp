// MaxSim: documents, queries in tiles, scans and exact scores.
#include "bind.h"
#include "maxsim.h"

namespace nestvec::cuda {

namespace {

constexpr int64_t SIZES[] = {4, 2, 2, 1};  // of TokenType

Bags make_bags(const Buffer& tokens, int type, int64_t count, int64_t stride, int64_t dims, const py::object& scales,
               const Buffer& offsets, int64_t n, const Buffer& norms) {
  need(type >= FLOAT32 && type <= INT8, "type");
  need(dims >= 1 && dims <= stride && n >= 0 && n < INT32_MAX, "dims");
  need(stride % 8 == 0 && uintptr_t(tokens.pointer()) % 16 == 0, "rows of tokens must be filled up to 8 values");
  tokens.at<char>(count * stride * SIZES[type], "tokens");
  return {tokens.pointer(),
          type,
          stride,
          dims,
          n,
          optional<const float>(scales, count, "scales"),
          offsets.at<const int64_t>(n + 1, "offsets"),
          norms.at<const float>(n, "norms")};
}

QueryBags make_queries(const Buffer& tokens, int64_t count, int64_t dims, const Buffer& offsets, const Buffer& tiles,
                       int64_t nq) {
  return {tokens.at<const float>(count * dims, "query tokens"), offsets.at<const int64_t>(nq + 1, "offsets of queries"),
          tiles.at<const int64_t>(nq + 1, "tiles of queries"), nq};
}

Tiles make_tiles(const Buffer& fragments, const Buffer& steps, const Buffer& errors, const Buffer& queries,
                 int64_t count, int64_t parts, int64_t dims) {
  need(parts >= 1 && parts <= 3, "parts");
  return {fragments.at<uint4>(count * ceil_div<int64_t>(dims, CHUNK) * parts * WARP, "fragments"),
          steps.at<double>(count * TILE, "steps"),
          errors.at<double>(count, "errors"),
          queries.at<int32_t>(count, "queries of tiles"),
          count,
          parts};
}

Items items_of(const py::object& docs, int64_t nq, int64_t step, int64_t first, int64_t last, int64_t n) {
  need(first >= 0 && (!docs.is_none() || last <= n), "items");
  return {optional<const int64_t>(docs, (step ? nq - 1 : 0) * step + last, "docs"), step, first, last};
}

void bind_classes(py::module_& m) {
  py::class_<Bags>(m, "Bags").def(py::init(&make_bags), py::keep_alive<1, 2>(), py::keep_alive<1, 7>(),
                                  py::keep_alive<1, 8>(), py::keep_alive<1, 10>());
  py::class_<QueryBags>(m, "QueryBags")
      .def(py::init(&make_queries), py::keep_alive<1, 2>(), py::keep_alive<1, 5>(), py::keep_alive<1, 6>());
  py::class_<Tiles>(m, "Tiles")
      .def(py::init(&make_tiles), py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>(),
           py::keep_alive<1, 5>());
}

void bind_scans(py::module_& m) {
  m.def("pad_rows",
        [](const Buffer& rows, int64_t bytes, const Buffer& target, int64_t target_bytes, int64_t n, uintptr_t stream) {
          need(bytes >= 0 && bytes <= target_bytes, "bytes");
          pad_rows(rows.at<char>(n * bytes, "rows"), bytes, target.at<char>(n * target_bytes, "target"), target_bytes,
                   n, stream_of(stream));
        });
  m.def("measure_bags",
        [](const Bags& bags, const Buffer& norms, const Buffer& bad, const Buffer& irregular, uintptr_t stream) {
          measure(bags, norms.at<float>(bags.n, "norms"), bad.at<long long>(1, "bad"),
                  irregular.at<int32_t>(1, "irregular"), stream_of(stream));
        });
  m.def("split_queries", [](const QueryBags& queries, const Bags& bags, const Tiles& tiles, uintptr_t stream) {
    split(queries, bags.dims, bags.type, tiles, stream_of(stream));
  });
  m.def("scan_bags",
        [](const Bags& bags, const QueryBags& queries, const Tiles& tiles, const Buffer& bundles, int64_t bundle_count,
           int64_t widest, const py::object& docs, int64_t step, int64_t first, int64_t last, const py::object& allowed,
           int64_t allowed_step, const py::object& lists, const py::object& out, uintptr_t stream) {
          need(lists.is_none() != out.is_none(), "either lists or out");
          int64_t nq = queries.nq;
          Scores scores = {{}, optional<float>(out, nq * last, "out"), last};
          if (!lists.is_none()) {
            scores.lists = lists.cast<const ListBuffers&>().get();
            need(lists.cast<const ListBuffers&>().nq == nq, "lists of other queries");
          }
          scan(bags, tiles, {bundles.at<const int64_t>(bundle_count + 1, "bundles"), bundle_count, widest},
               items_of(docs, nq, step, first, last, bags.n), row_sets(allowed, nq, allowed_step, bags.n), scores,
               stream_of(stream));
        });
}

void bind_exact(py::module_& m) {
  m.def("tighten", [](const ListBuffers& lists, const Bags& bags, const QueryBags& queries, const Tiles& tiles,
                      int64_t k, uintptr_t stream) {
    need(k >= 1 && k <= lists.room && lists.nq == queries.nq, "k");
    tighten(lists.get(), bags, queries, tiles, k, stream_of(stream));
  });
  m.def("rank_lists", [](const ListBuffers& lists, const Bags& bags, const QueryBags& queries, const py::object& ids,
                         int64_t base, const Buffer& scored, const Buffer& scored_ids, const Buffer& scores,
                         const Buffer& found, int64_t k, uintptr_t stream) {
    int64_t nq = queries.nq, room = lists.room;
    need(k >= 1 && k <= MOST_RESULTS && lists.nq == nq && room % k == 0, "k");
    Best partial = {scored.at<double>(nq * room, "scored"), scored_ids.at<int64_t>(nq * room, "scored ids"), room};
    score_lists(lists.get(), bags, queries, naming_of(ids, base, bags.n), partial, stream_of(stream));
    merge_best(partial, room / k, nullptr, {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k},
               nq, stream_of(stream));
  });
  m.def("score_items", [](const Bags& bags, const QueryBags& queries, const py::object& docs, int64_t step,
                          int64_t count, bool irregular, const Buffer& out, uintptr_t stream) {
    score_items(bags, queries, items_of(docs, queries.nq, step, 0, count, bags.n), irregular,
                out.at<float>(queries.nq * count, "out"), stream_of(stream));
  });
  m.def("top_k_of_bags",
        [](const Bags& bags, const QueryBags& queries, const py::object& only, int64_t shares,
           const py::object& allowed, int64_t step, const py::object& ids, int64_t base, const Buffer& partial_scores,
           const Buffer& partial_ids, const Buffer& scores, const Buffer& found, int64_t k, uintptr_t stream) {
          int64_t nq = queries.nq, n = bags.n;
          need(k >= 1 && k <= MOST_RESULTS && shares >= 1, "k");
          Best partial = {partial_scores.at<double>(nq * shares * k, "partial scores"),
                          partial_ids.at<int64_t>(nq * shares * k, "partial ids"), k};
          Brute brute = {optional<const int32_t>(only, nq, "only"), n, shares, row_sets(allowed, nq, step, n),
                         naming_of(ids, base, n)};
          top_k_of_bags(bags, queries, brute, partial,
                        {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k}, stream_of(stream));
        });
}

}  // namespace

void bind_maxsim(py::module_& m) {
  bind_classes(m);
  bind_scans(m);
  bind_exact(m);
}

}  // namespace nestvec::cuda
