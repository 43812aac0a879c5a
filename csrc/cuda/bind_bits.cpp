// Binary codes: planes of words, and what finds the nearest in them.
#include "bind.h"
#include "bits.h"

namespace nestvec::cuda {

namespace {

BitPlane make_plane(const Buffer& words, const Buffer& table, int64_t count, int64_t capacity) {
  need(count >= 1 && capacity % 64 == 0, "capacity must be a multiple of 64");
  return {words.at<uint64_t>(count * capacity, "words"), table.at<const Word>(count, "table"), count, capacity};
}

BitQueries make_queries(const Buffer& words, int64_t nq, int64_t width, int bits, int what, const BitPlane& plane) {
  need(width >= 1 && width <= plane.count && bits >= 1 && (what == XOR || what == AND), "bits of queries");
  return {words.at<const uint64_t>(nq * plane.count, "words of queries"), nq, width, bits, what};
}

struct NearBuffers {
  ListBuffers lists;
  const Buffer &histogram, &ends;
  const int32_t* ranks;
  int64_t bins;
  Near get() const {
    return {lists.get(), histogram.at<int32_t>(lists.nq * bins, "histogram"), ends.at<int32_t>(lists.nq, "ends"), ranks,
            bins};
  }
};

void refuse_other(const BitQueries& queries, int64_t nq) { need(queries.nq == nq, "lists of other queries"); }

}  // namespace

void bind_bits(py::module_& m) {
  py::class_<BitPlane>(m, "BitPlane").def(py::init(&make_plane), py::keep_alive<1, 2>(), py::keep_alive<1, 3>());
  py::class_<BitQueries>(m, "BitQueries").def(py::init(&make_queries), py::keep_alive<1, 2>());
  py::class_<NearBuffers>(m, "Near").def(
      py::init([](const ListBuffers& lists, const Buffer& histogram, const Buffer& ends, const py::object& ranks,
                  int64_t n, int64_t bins) {
        auto made = new NearBuffers{lists, histogram, ends, optional<const int32_t>(ranks, n, "ranks"), bins};
        made->get();
        return made;
      }),
      py::keep_alive<1, 2>(), py::keep_alive<1, 3>(), py::keep_alive<1, 4>(), py::keep_alive<1, 5>());
  m.def("pack_codes",
        [](const Buffer& codes, int64_t n, int64_t stride, const BitPlane& plane, int64_t first, uintptr_t stream) {
          need(first >= 0 && first + n <= plane.capacity, "rows beyond the plane");
          pack_codes(codes.at<const uint8_t>(n * stride, "codes"), n, stride, plane, first, stream_of(stream));
        });
  m.def("pack_query_codes", [](const Buffer& codes, int64_t n, int64_t stride, const BitPlane& plane,
                               const Buffer& words, uintptr_t stream) {
    pack_query_codes(codes.at<const uint8_t>(n * stride, "codes"), n, stride, plane,
                     words.at<uint64_t>(n * plane.count, "words of queries"), stream_of(stream));
  });
  m.def("scan_bits", [](const BitPlane& plane, const BitQueries& queries, int64_t n, int64_t stride, int64_t skip,
                        const py::object& allowed, int64_t step, const NearBuffers& near, uintptr_t stream) {
    const auto& q = queries;
    need(n <= plane.capacity && stride >= 1 && (skip == 0 || skip >= 2), "rows beyond the plane");
    need(q.bits < near.bins, "a histogram of fewer bits");
    refuse_other(q, near.lists.nq);
    scan_bits(plane, q, {n, stride, skip}, row_sets(allowed, q.nq, step, n), near.get(), stream_of(stream));
  });
  m.def("narrow_lists", [](const NearBuffers& near, int64_t k, bool all, uintptr_t stream) {
    need(k >= 1 && k <= near.lists.room, "k must be at least 1, and there must be room for as many");
    narrow_lists(near.get(), near.lists.nq, k, all, stream_of(stream));
  });
  m.def("keep_nearest", [](const ListBuffers& lists, const py::object& ranks, int64_t n, int64_t k, uintptr_t stream) {
    need(k >= 1 && k <= lists.room, "k must be at least 1, and there must be room for as many");
    keep_nearest(lists.get(), optional<const int32_t>(ranks, n, "ranks"), lists.nq, k, stream_of(stream));
  });
  m.def("list_bits", [](const BitPlane& plane, const BitQueries& queries, int64_t begin, const ListBuffers& lists,
                        uintptr_t stream) {
    refuse_other(queries, lists.nq);
    list_bits(plane, queries, begin, lists.get(), stream_of(stream));
  });
  m.def("list_lost", [](const BitPlane& plane, const BitQueries& queries, int64_t n, int64_t keep,
                        const py::object& allowed, int64_t step, const ListBuffers& lists, uintptr_t stream) {
    need(n <= plane.capacity && n <= INT32_MAX && keep >= 1 && keep <= lists.room, "rows beyond the plane");
    refuse_other(queries, lists.nq);
    list_lost(plane, queries, n, keep, row_sets(allowed, lists.nq, step, n), lists.get(), stream_of(stream));
  });
  m.def("top_k_of_bits", [](const BitPlane& plane, const BitQueries& queries, const py::object& only, int64_t n,
                            int64_t shares, const py::object& allowed, int64_t step, const py::object& ids,
                            int64_t base, const Buffer& partial_scores, const Buffer& partial_ids, const Buffer& scores,
                            const Buffer& found, int64_t k, uintptr_t stream) {
    int64_t nq = queries.nq;
    need(k >= 1 && k <= MOST_RESULTS && shares >= 1 && n <= plane.capacity, "k");
    Best partial = {partial_scores.at<double>(nq * shares * k, "partial scores"),
                    partial_ids.at<int64_t>(nq * shares * k, "partial ids"), k};
    top_k_of_bits(
        plane, queries,
        {optional<const int32_t>(only, nq, "only"), n, shares, row_sets(allowed, nq, step, n), naming_of(ids, base, n)},
        partial, {scores.at<double>(nq * k, "scores"), found.at<int64_t>(nq * k, "ids"), k}, stream_of(stream));
  });
  m.def("as_distances",
        [](const Buffer& scores, const Buffer& found, int64_t nq, int64_t count, int64_t k, const py::object& bad,
           int64_t first, const Buffer& distances, const Buffer& ids, uintptr_t stream) {
          need(count >= 1 && k >= 1 && first >= 0, "k");
          const int32_t* marks = optional<const int32_t>(bad, first + nq, "marks");
          as_distances({scores.at<double>(nq * count, "scores"), found.at<int64_t>(nq * count, "ids"), count}, nq, k,
                       marks ? marks + first : nullptr, distances.at<int32_t>(nq * k, "distances", first * k * 4),
                       ids.at<int64_t>(nq * k, "ids", first * k * 8), stream_of(stream));
        });
  m.def("pack_signs",
        [](const Buffer& x, int64_t n, int64_t d, const Buffer& thresholds, const Buffer& codes, uintptr_t stream) {
          pack_signs(x.at<const float>(n * d, "vectors"), n, d, thresholds.at<const float>(d, "thresholds"),
                     codes.at<uint8_t>(n * ((d + 7) / 8), "codes"), stream_of(stream));
        });
}

}  // namespace nestvec::cuda
