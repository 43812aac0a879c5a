// Bindings of the kernels over coarse codes: binary codes, and the stages of plans.
#include <algorithm>

#include "bind.h"

namespace nestvec {
namespace {

// Elements that a plane of levels of a given width per row needs, and that its starts are within `size`.
template <class Width>
void check_levels(const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t levels, int64_t rows,
                  int64_t size, Width width) {
  need(levels >= 1 && levels <= bounds.size() && bounds.size() == starts.size() && bounds.size() <= 32,
       "levels exceed the plane");
  for (int64_t l = 0; l < levels; l++) {
    int64_t bits = bounds.data()[l] - (l ? bounds.data()[l - 1] : 0);
    need(bits > 0 && starts.data()[l] >= 0 && starts.data()[l] + rows * width(bits) <= size,
         "the plane is smaller than its levels");
  }
}

int64_t word_width(int64_t bits) { return (bits + 63) / 64; }
int64_t nibble_width(int64_t dims) { return (dims + 7) / 8 * 4; }
int64_t byte_width(int64_t dims) { return (dims + 3) / 4 * 4; }
int64_t blocks(int64_t rows) { return (rows + 63) / 64 * 64; }

Words words_of(const Array<uint64_t>& words, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t levels,
               int64_t rows) {
  check_levels(starts, bounds, levels, blocks(rows), words.size(), word_width);
  return {words.data(), starts.data(), bounds.data(), bounds.size()};
}

// Words of a query that the first `bits` bits touch, and the levels they lie in.
int64_t query_width(const Array<int64_t>& bounds, int64_t bits, int64_t& levels) {
  need(bits >= 1 && bits <= bounds.data()[bounds.size() - 1], "bits must be within the codes");
  int64_t width = 0;
  for (levels = 0; levels < bounds.size() && (levels ? bounds.data()[levels - 1] : 0) < bits; levels++) {
    int64_t end = bounds.data()[levels] < bits ? bounds.data()[levels] : bits;
    width += word_width(end - (levels ? bounds.data()[levels - 1] : 0));
  }
  return width;
}

BitQueries bit_queries_of(const Array<uint64_t>& queries, const Array<int64_t>& bounds, int64_t bits, int what,
                          int64_t& levels) {
  need(queries.ndim() == 2 && queries.shape(1) >= query_width(bounds, bits, levels) && what >= 0 && what <= 2,
       "queries are narrower than the levels read");
  return {queries.data(), queries.shape(0), queries.shape(1), bits, what};
}

RowSets row_sets_of(const Array<uint64_t>& allowed, int64_t queries, int64_t last) {
  need(allowed.ndim() == 2, "allowed must be (0, 1 or queries, words)");
  int64_t sets = allowed.shape(0), words = allowed.shape(1);
  need(sets == 0 || ((sets == 1 || sets == queries) && words * 64 >= last),
       "allowed must be (0, 1 or queries, words), with a bit for every row");
  return {sets ? allowed.data() : nullptr, sets > 1 ? words : 0};
}

template <class T>
void bind_sign_bits(py::module_& m, const char* name,
                    void (&sign_bits)(const T*, int64_t, int64_t, const T*, uint8_t*)) {
  m.def(
      name,
      [&sign_bits](const Array<T>& x, const Array<T>& thresholds, Array<uint8_t>& codes) {
        need(x.ndim() == 2 && thresholds.size() == x.shape(1) && codes.ndim() == 2 && codes.shape(0) == x.shape(0) &&
                 codes.shape(1) == (x.shape(1) + 7) / 8,
             "one threshold per dim, and codes of (n, ceil(d / 8))");
        uint8_t* to = output(codes);
        py::gil_scoped_release release;
        sign_bits(x.data(), x.shape(0), x.shape(1), thresholds.data(), to);
      },
      py::arg("x").noconvert(), py::arg("thresholds").noconvert(), py::arg("codes").noconvert());
}

void bind_bits(py::module_& m, const Kernels& k) {
  m.def(
      "pack_words",
      [&k](const Array<uint8_t>& codes, const Array<int64_t>& bounds, const Array<int64_t>& starts, int64_t first,
           Array<uint64_t>& words) {
        need(codes.ndim() == 2 && first >= 0 && codes.shape(1) * 8 >= bounds.data()[bounds.size() - 1],
             "codes are narrower than the last level");
        words_of(words, starts, bounds, bounds.size(), first + codes.shape(0));
        uint64_t* to = output(words);
        py::gil_scoped_release release;
        k.pack_words(codes.data(), codes.shape(0), codes.shape(1), bounds.data(), bounds.size(), starts.data(), first,
                     to);
      },
      py::arg("codes").noconvert(), py::arg("bounds").noconvert(), py::arg("starts").noconvert(), py::arg("first"),
      py::arg("words").noconvert());
  m.def(
      "count_bits",
      [&k](const Array<uint64_t>& words, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t bits,
           const Array<uint64_t>& queries, int what, int64_t first, int64_t last, Array<int32_t>& out) {
        int64_t levels;
        BitQueries q = bit_queries_of(queries, bounds, bits, what, levels);
        Words p = words_of(words, starts, bounds, levels, last);
        need(first >= 0 && first % 64 == 0 && out.size() == q.n * (last - first), "out must be (nq, last - first)");
        int32_t* to = output(out);
        py::gil_scoped_release release;
        k.count_bits(p, q, first, last, to);
      },
      py::arg("words").noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(), py::arg("bits"),
      py::arg("queries").noconvert(), py::arg("what"), py::arg("first"), py::arg("last"), py::arg("out").noconvert());
  m.def(
      "scan_bits",
      [&k](const Array<uint64_t>& words, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t bits,
           const Array<uint64_t>& queries, int what, int64_t wanted, bool in_order, int64_t first, int64_t last,
           const Array<uint64_t>& allowed, Array<int32_t>& histograms, Array<int32_t>& limits, Array<int64_t>& totals,
           Array<int32_t>& rows, Array<int32_t>& distances, Array<int64_t>& counts) {
        int64_t levels;
        BitQueries q = bit_queries_of(queries, bounds, bits, what, levels);
        Words p = words_of(words, starts, bounds, levels, last);
        need(first >= 0 && first % 64 == 0 && wanted >= 1 && what <= 1, "first must be a block, k at least 1");
        need(histograms.size() == q.n * (bits + 1) && limits.size() == q.n && totals.size() == q.n &&
                 counts.size() == q.n && rows.ndim() == 2 && rows.shape(0) == q.n && distances.size() == rows.size(),
             "one histogram, limit, total and list per query");
        Nearest near{output(histograms), output(limits), output(totals), output(rows), output(distances),
                     output(counts),     rows.shape(1),  wanted,         in_order};
        RowSets sets = row_sets_of(allowed, q.n, last);
        py::gil_scoped_release release;
        return k.scan_bits(p, q, first, last, sets, near);
      },
      py::arg("words").noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(), py::arg("bits"),
      py::arg("queries").noconvert(), py::arg("what"), py::arg("k"), py::arg("in_order"), py::arg("first"),
      py::arg("last"), py::arg("allowed").noconvert(), py::arg("histograms").noconvert(), py::arg("limits").noconvert(),
      py::arg("totals").noconvert(), py::arg("rows").noconvert(), py::arg("distances").noconvert(),
      py::arg("counts").noconvert());
  m.def(
      "list_bits",
      [&k](const Array<uint64_t>& words, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t begin,
           int64_t bits, const Array<uint64_t>& query, const Array<int32_t>& rows, Array<int32_t>& distances) {
        int64_t levels, last = 0;
        need(query.size() >= query_width(bounds, bits, levels) && distances.size() == rows.size() && begin >= 0,
             "the query is narrower than the levels read, or not one distance per row");
        for (int64_t i = 0; i < rows.size(); i++) {
          need(rows.data()[i] >= 0, "rows must not be negative");
          last = std::max<int64_t>(last, rows.data()[i] + int64_t(1));
        }
        Words p = words_of(words, starts, bounds, levels, last);
        BitQueries q{query.data(), 1, query.size(), bits, 0};
        int32_t* to = output(distances);
        py::gil_scoped_release release;
        k.list_bits(p, q, begin, rows.data(), rows.size(), to);
      },
      py::arg("words").noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(), py::arg("begin"),
      py::arg("bits"), py::arg("query").noconvert(), py::arg("rows").noconvert(), py::arg("distances").noconvert());
  m.def(
      "order_bits",
      [&k](Array<int32_t>& limits, Array<int32_t>& rows, Array<int32_t>& distances, Array<int64_t>& counts,
           Array<int64_t>& places, Array<int32_t>& best_rows, Array<int32_t>& best) {
        int64_t n = counts.size();
        need(limits.size() == n && rows.ndim() == 2 && rows.shape(0) == n && distances.size() == rows.size() &&
                 best.ndim() == 2 && best.shape(0) == n && best_rows.size() == best.size(),
             "one limit and list per query");
        for (int64_t i = 0; i < n; i++)
          need(limits.data()[i] >= -1 && limits.data()[i] + 2 <= places.size() && counts.data()[i] <= rows.shape(1),
               "places must have room for the largest limit");
        Nearest near{nullptr,        output(limits), nullptr,       output(rows), output(distances),
                     output(counts), rows.shape(1),  best.shape(1), false};
        int64_t* counters = output(places);
        int32_t *to_rows = output(best_rows), *to = output(best);
        py::gil_scoped_release release;
        k.order_bits(near, n, counters, to_rows, to);
      },
      py::arg("limits").noconvert(), py::arg("rows").noconvert(), py::arg("distances").noconvert(),
      py::arg("counts").noconvert(), py::arg("places").noconvert(), py::arg("best_rows").noconvert(),
      py::arg("best").noconvert());
}

// Factors (3, L, capacity), or the stats of an int8 plane, (3 L, capacity).
template <class T>
int64_t capacity_of(const Array<T>& factors, const Array<int64_t>& bounds) {
  int64_t capacity = factors.size() / (3 * bounds.size());
  need(factors.size() == 3 * bounds.size() * capacity && capacity % 64 == 0, "factors must fit the levels");
  return capacity;
}

void bind_packing(py::module_& m, const Kernels& k) {
  m.def(
      "pack_signs",
      [&k](const Array<float>& x, const Array<double>& center, const Array<int64_t>& bounds,
           const Array<int64_t>& starts, int metric, int64_t first, Array<uint64_t>& words, Array<uint16_t>& factors) {
        int64_t capacity = capacity_of(factors, bounds), d = bounds.data()[bounds.size() - 1];
        need(x.ndim() == 2 && x.shape(1) == d && center.size() == d && first >= 0 && first + x.shape(0) <= capacity,
             "rows and center must have the dims of the last level");
        words_of(words, starts, bounds, bounds.size(), first + x.shape(0));
        uint64_t* to = output(words);
        uint16_t* to_factors = output(factors);
        py::gil_scoped_release release;
        k.pack_signs(x.data(), x.shape(0), d, center.data(), bounds.data(), bounds.size(), starts.data(), metric, first,
                     to, to_factors, capacity);
      },
      py::arg("x").noconvert(), py::arg("center").noconvert(), py::arg("bounds").noconvert(),
      py::arg("starts").noconvert(), py::arg("metric"), py::arg("first"), py::arg("words").noconvert(),
      py::arg("factors").noconvert());
  m.def(
      "pack_nibbles",
      [&k](const Array<float>& x, const Array<int64_t>& bounds, const Array<int64_t>& starts,
           const Array<uint8_t>& codes, const Array<int64_t>& nibble_starts, int metric, int64_t first,
           Array<uint8_t>& nibbles, Array<uint16_t>& factors) {
        int64_t capacity = capacity_of(factors, bounds), levels = bounds.size(), rows = first + x.shape(0);
        need(x.ndim() == 2 && x.shape(1) == bounds.data()[levels - 1] && first >= 0 && rows <= capacity,
             "rows must have the dims of the last level");
        check_levels(starts, bounds, levels, blocks(rows), codes.size(), byte_width);
        check_levels(nibble_starts, bounds, levels, blocks(rows), nibbles.size(), nibble_width);
        uint8_t* to = output(nibbles);
        uint16_t* to_factors = output(factors);
        py::gil_scoped_release release;
        k.pack_nibbles(x.data(), x.shape(0), x.shape(1), bounds.data(), levels, starts.data(), codes.data(),
                       nibble_starts.data(), metric, first, to, to_factors, capacity);
      },
      py::arg("x").noconvert(), py::arg("bounds").noconvert(), py::arg("starts").noconvert(),
      py::arg("codes").noconvert(), py::arg("nibble_starts").noconvert(), py::arg("metric"), py::arg("first"),
      py::arg("nibbles").noconvert(), py::arg("factors").noconvert());
}

void bind_coding(py::module_& m, const Kernels& k) {
  m.def(
      "code_queries",
      [&k](const Array<double>& q, const Array<double>& center, const Array<int64_t>& bounds, int64_t dims,
           int64_t widest, int metric, int64_t largest, double shift, Array<int8_t>& codes, Array<uint64_t>& digits,
           Array<int64_t>& shifts, Array<float>& lifts, Array<double>& units, Array<double>& offsets) {
        need(q.ndim() == 2 && codes.ndim() == 2 && digits.ndim() == 3, "queries, their codes and digits");
        int64_t n = q.shape(0), width = 0;
        need(dims >= 1 && dims <= widest && widest <= q.shape(1), "queries have fewer dims than asked for");
        need(center.size() == 0 || center.size() >= widest, "center has fewer dims than asked for");
        need(bounds.size() >= 1 && dims <= bounds.data()[bounds.size() - 1], "dims exceed the levels");
        for (int64_t l = 0, begin = 0; begin < dims; begin = bounds.data()[l++]) {
          need(bounds.data()[l] > begin, "levels must ascend");
          width += (bounds.data()[l] - begin + 63) / 64 * 64;
        }
        need(codes.shape(0) == n && (codes.shape(1) == width || codes.shape(1) == 0) && digits.shape(0) == n &&
                 digits.shape(1) <= 8 && digits.shape(2) * 64 == width && largest >= 1 && largest <= 127,
             "codes must be as wide as the levels, in at most 8 digits");
        need(shifts.size() == n && lifts.size() == n && units.size() == n && offsets.size() == n,
             "shifts, lifts, units and offsets must be (nq,)");
        FloatQueries from{q.data(),      n,    q.shape(1), center.size() ? center.data() : nullptr,
                          bounds.data(), dims, widest,     metric};
        CodedQueries to{codes.size() ? output(codes) : nullptr,
                        width,
                        output(digits),
                        digits.shape(1),
                        output(shifts),
                        output(lifts),
                        output(units),
                        output(offsets)};
        py::gil_scoped_release release;
        k.code_queries(from, largest, shift, to);
      },
      py::arg("q").noconvert(), py::arg("center").noconvert(), py::arg("bounds").noconvert(), py::arg("dims"),
      py::arg("widest"), py::arg("metric"), py::arg("largest"), py::arg("shift"), py::arg("codes").noconvert(),
      py::arg("digits").noconvert(), py::arg("shifts").noconvert(), py::arg("lifts").noconvert(),
      py::arg("units").noconvert(), py::arg("offsets").noconvert());
}

Shortlist shortlist_of(Array<int32_t>& rows, Array<int32_t>& sums, Array<float>& values, int64_t* count) {
  need(sums.size() == rows.size() && values.size() == rows.size(), "rows, sums and values must have one size");
  return {output(rows), output(sums), output(values), count, rows.size()};
}

// One query against one kind of codes, T: words of signs in digits, or int8 codes for planes of bytes.
template <class T, class Q, class F>
struct Coded {
  const char *codes, *mode;
  int64_t (*width)(int64_t);
  int64_t query_step;

  CodePlane plane(const Array<T>& codes, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t levels,
                  const Array<F>& factors, int mode, int64_t last) const {
    int64_t capacity = capacity_of(factors, bounds);
    need(last <= capacity, "rows exceed the factors");
    check_levels(starts, bounds, levels, blocks(last), codes.size(), width);
    need(bounds.data()[levels - 1] <= 65536, "at most 65,536 dims can be searched");
    return {codes.data(), starts.data(), bounds.data(), factors.data(), bounds.size(), capacity, levels, mode};
  }

  CodeQuery query(const Array<Q>& query, const CodePlane& p, int64_t shift, float a) const {
    bool digits = query.ndim() == 2;
    int64_t width = query.shape(query.ndim() - 1), count = digits ? query.shape(0) : 1, needed = 0;
    for (int64_t l = 0; l < p.levels; l++) needed += (p.bounds[l] - (l ? p.bounds[l - 1] : 0) + 63) / 64 * query_step;
    need(width >= needed && (!digits || (count >= 4 && count <= 8 && count != 7)),
         "the query is narrower than the levels, or has not 4, 5, 6 or 8 digits");
    return {query.data(), count, width, shift, a};
  }
};

template <class T, class Q, class F>
void bind_coded(py::module_& m, const std::string& suffix, const Coded<T, Q, F>& coded, ScanCodes& scan,
                ListCodes& list) {
  m.def(
      ("scan_" + suffix).c_str(),
      [coded, &scan](const Array<T>& codes, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t levels,
                     const Array<F>& factors, int mode, const Array<Q>& query, int64_t shift, float a, float threshold,
                     int64_t keep, int64_t first, int64_t last, int64_t stride, int64_t slot,
                     const Array<uint64_t>& allowed, Array<int32_t>& rows, Array<int32_t>& sums, Array<float>& values,
                     Array<int64_t>& counts) {
        CodePlane p = coded.plane(codes, starts, bounds, levels, factors, mode, last);
        CodeQuery q = coded.query(query, p, shift, a);
        need(first >= 0 && first % 64 == 0 && stride >= 64 && stride % 64 == 0 && slot >= 0 && slot + last <= INT32_MAX,
             "first and stride must be blocks");
        need(allowed.size() == 0 || allowed.size() * 64 >= last, "allowed must have a bit for every row");
        Shortlist out = shortlist_of(rows, sums, values, output(counts));
        int64_t some = std::min(last - first, (last - first + stride - 1) / stride * 64);
        need(counts.size() == 1 && *out.count >= 0 && *out.count <= out.room && keep >= 1 &&
                 out.room - 64 >= std::min(keep, *out.count + some),
             "there must be room for the rows kept and 64 more");
        py::gil_scoped_release release;
        return scan(p, q, threshold, keep, first, last, stride, slot, allowed.size() ? allowed.data() : nullptr, out);
      },
      py::arg(coded.codes).noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(), py::arg("levels"),
      py::arg(sizeof(F) == 2 ? "factors" : "stats").noconvert(), py::arg(coded.mode), py::arg("query").noconvert(),
      py::arg("shift"), py::arg("a"), py::arg("threshold"), py::arg("keep"), py::arg("first"), py::arg("last"),
      py::arg("stride"), py::arg("slot"), py::arg("allowed").noconvert(), py::arg("rows").noconvert(),
      py::arg("sums").noconvert(), py::arg("values").noconvert(), py::arg("counts").noconvert());
  m.def(("list_" + suffix).c_str(),
        [coded, &list](const Array<T>& codes, const Array<int64_t>& starts, const Array<int64_t>& bounds, int64_t begin,
                       int64_t levels, const Array<F>& factors, int mode, const Array<Q>& query, int64_t shift, float a,
                       Array<int32_t>& rows, Array<int32_t>& sums, Array<float>& values) {
          int64_t last = 0;
          for (int64_t i = 0; i < rows.size(); i++) {
            int64_t row = rows.data()[i];
            need(row >= 0, "rows must not be negative");
            last = row >= last ? row + 1 : last;
          }
          CodePlane p = coded.plane(codes, starts, bounds, levels, factors, mode, last);
          CodeQuery q = coded.query(query, p, shift, a);
          need(begin >= 0 && begin <= levels, "begin must be a level read");
          Shortlist some = shortlist_of(rows, sums, values, nullptr);
          py::gil_scoped_release release;
          list(p, q, begin, rows.size(), some);
        },
        py::arg(coded.codes).noconvert(), py::arg("starts").noconvert(), py::arg("bounds").noconvert(),
        py::arg("begin"), py::arg("levels"), py::arg(sizeof(F) == 2 ? "factors" : "stats").noconvert(),
        py::arg(coded.mode), py::arg("query").noconvert(), py::arg("shift"), py::arg("a"), py::arg("rows").noconvert(),
        py::arg("sums").noconvert(), py::arg("values").noconvert());
}

void bind_estimates(py::module_& m, const Kernels& k) {
  bind_coded(m, "b1", Coded<uint64_t, uint64_t, uint16_t>{"words", "lifted", word_width, 1}, k.scan_b1, k.list_b1);
  bind_coded(m, "i4", Coded<uint8_t, int8_t, uint16_t>{"nibbles", "lifted", nibble_width, 64}, k.scan_i4, k.list_i4);
  bind_coded(m, "i8", Coded<uint8_t, int8_t, float>{"codes", "metric", byte_width, 64}, k.scan_i8, k.list_i8);
  m.def(
      "keep_best",
      [&k](Array<int32_t>& rows, Array<int32_t>& sums, Array<float>& values, Array<int64_t>& counts, int64_t keep) {
        Shortlist list = shortlist_of(rows, sums, values, output(counts));
        need(counts.size() == 1 && *list.count <= list.room && keep >= 1, "keep must be at least 1");
        py::gil_scoped_release release;
        return k.keep_best(list, keep);
      },
      py::arg("rows").noconvert(), py::arg("sums").noconvert(), py::arg("values").noconvert(),
      py::arg("counts").noconvert(), py::arg("keep"));
}

}  // namespace

void bind_codes(py::module_& m, const Kernels& k) {
  bind_sign_bits(m, "sign_bits_f32", k.sign_bits_f32);
  bind_sign_bits(m, "sign_bits_f64", k.sign_bits_f64);
  bind_bits(m, k);
  bind_packing(m, k);
  bind_coding(m, k);
  bind_estimates(m, k);
}

}  // namespace nestvec
