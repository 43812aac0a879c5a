// Eight threads search a segment while one adds rows to it and removes some, to be run under ThreadSanitizer: the
// kernels are the real ones, and what surrounds them here does what the Python code does around them.
//
//   stress SECONDS SEED copy|place OPERATION...
//
// Rows below the published count never change, but kernels read whole blocks of 64 rows. With `copy`, readers scan
// whole blocks where they lie, and a copy of the rows that the last, partly filled block has; documents whose tokens
// end where scans read on into tokens that come later are copied too. With `place`, everything is scanned where it
// lies.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

namespace nestvec {
extern const Kernels JOIN(kernels_, NESTVEC_ISA);
}

namespace {

using namespace nestvec;
const Kernels& kernels = JOIN(kernels_, NESTVEC_ISA);

constexpr int64_t kBlock = 64, kTile = 16, kDims = 96, kLevels = 2, kCapacity = 1024, kCodeBytes = kDims / 8;
constexpr int64_t kBounds[kLevels] = {32, kDims};
constexpr int64_t kQueries = 5, kPadded = 32, kStride = 192, kFound = 10, kDigits = 5;
constexpr int64_t kDocuments = 512, kMostTokens = 6, kPanelBytes = 2048;
constexpr int64_t kBehind = 15 + (64 + kDims + kDims - 1) / kDims;  // tokens that a scan may read too much
constexpr int kL2 = 1, kXor = 0;
constexpr float kLowest = -std::numeric_limits<float>::infinity();

[[noreturn]] void fail(const char* what, int64_t n) {
  fprintf(stderr, "wrong answer: %s with %ld rows\n", what, long(n));
  _exit(3);
}
void need(bool holds, const char* what, int64_t n) {
  if (!holds) fail(what, n);
}

// What is added: the same in every round, so that an answer follows from the number of rows.
struct Source {
  std::vector<float> x, tokens;
  std::vector<uint8_t> codes;
  std::vector<double> center;
  std::vector<int64_t> offsets{0};

  explicit Source(std::mt19937& random) {
    auto values = [&](int64_t n) {
      std::vector<float> some(n);
      for (float& value : some) value = std::normal_distribution<float>()(random);
      return some;
    };
    x = values(kCapacity * kDims);
    center.assign(kDims, 0.1);
    codes.resize(kCapacity * kCodeBytes);
    for (uint8_t& byte : codes) byte = uint8_t(random());
    for (int64_t doc = 0; doc < kDocuments; doc++) offsets.push_back(offsets.back() + random() % (kMostTokens + 1));
    tokens = values(offsets.back() * kDims);
  }
};

// A segment, with every plane there is.
struct Planes {
  int64_t capacity;
  int64_t starts[kLevels], word_starts[kLevels], nibble_starts[kLevels];
  std::vector<float> rows, stats, blocks;
  std::vector<uint8_t> codes, nibbles;
  std::vector<uint64_t> words, bits;
  std::vector<uint16_t> sign_factors, nibble_factors;

  explicit Planes(int64_t room)
      : capacity(room),
        rows(room * kDims),
        stats(3 * kLevels * room),
        blocks(2 * kLevels * (room / kBlock)),
        codes(room * kDims + 1024),
        nibbles(room * kDims / 2),
        words(room * 2),
        bits(room * 2),
        sign_factors(3 * kLevels * room),
        nibble_factors(3 * kLevels * room) {
    for (int64_t level = 0; level < kLevels; level++) {
      starts[level] = level ? kBounds[0] * room : 0;
      word_starts[level] = level ? room : 0;
      nibble_starts[level] = starts[level] / 2;
    }
  }

  void write(const Source& from, int64_t first, int64_t n) {
    const float* x = from.x.data() + first * kDims;
    std::copy(x, x + n * kDims, rows.data() + first * kDims);
    kernels.pack_rows(x, n, kDims, kBounds, kLevels, starts, first, codes.data(), stats.data(), blocks.data(),
                      capacity);
    kernels.pack_signs(x, n, kDims, from.center.data(), kBounds, kLevels, word_starts, kL2, first, words.data(),
                       sign_factors.data(), capacity);
    kernels.pack_nibbles(x, n, kDims, kBounds, kLevels, starts, codes.data(), nibble_starts, kL2, first, nibbles.data(),
                         nibble_factors.data(), capacity);
    kernels.pack_words(from.codes.data() + first * kCodeBytes, n, kCodeBytes, kBounds, kLevels, word_starts, first,
                       bits.data());
  }

  // The maxima of the blocks that rows from n on go to, and the way back: what an `add` that fails does.
  std::vector<float> maxima() const { return blocks; }
  void restore(const std::vector<float>& before, int64_t n) {
    int64_t count = capacity / kBlock;
    for (int64_t i = 0; i < 2 * kLevels; i++)
      for (int64_t b = n / kBlock; b < count; b++) blocks[i * count + b] = before[i * count + b];
  }

  // Rows [first, first + n) of another segment, at most a block and from its beginning on, row by row.
  void copy(const Planes& from, int64_t first, int64_t n) {
    for (int64_t r = 0; r < n; r++) {
      int64_t row = first + r;
      for (int64_t level = 0; level < kLevels; level++) {
        int64_t dims = kBounds[level] - (level ? kBounds[level - 1] : 0);
        columns(codes.data() + starts[level], from.codes.data() + from.starts[level], r, row, dims / 4);
        columns(nibbles.data() + nibble_starts[level], from.nibbles.data() + from.nibble_starts[level], r, row,
                dims / 8);
        words[word_starts[level] + r] = from.words[from.word_starts[level] + row];
        bits[word_starts[level] + r] = from.bits[from.word_starts[level] + row];
      }
      for (int64_t i = 0; i < 3 * kLevels; i++) {
        stats[i * capacity + r] = from.stats[i * from.capacity + row];
        sign_factors[i * capacity + r] = from.sign_factors[i * from.capacity + row];
        nibble_factors[i * capacity + r] = from.nibble_factors[i * from.capacity + row];
      }
    }
    for (int64_t i = 0; i < 2 * kLevels; i++)
      blocks[i] = *std::max_element(&stats[(1 + i) * capacity], &stats[(1 + i) * capacity] + n);
  }

 private:
  static void columns(uint8_t* to, const uint8_t* from, int64_t r, int64_t row, int64_t lines) {
    for (int64_t line = 0; line < lines; line++)
      memcpy(to + (r / kTile * lines + line) * 64 + r % kTile * 4,
             from + (row / kTile * lines + line) * 64 + row % kTile * 4, 4);
  }
};

// Documents and their tokens.
struct Tokens {
  std::vector<float> rows, scales, bounds;
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<int64_t> offsets;
  int64_t documents;

  Tokens(int64_t count, int64_t tokens)
      : rows(tokens * kDims),
        scales(tokens),
        bounds(2 * count),
        codes((tokens + kBehind) * kDims),
        sums(tokens),
        offsets(count + 1),
        documents(count) {}

  void write(const Source& from, int64_t first, int64_t n) {
    int64_t at = from.offsets[first], count = from.offsets[first + n] - at;
    std::vector<int64_t> cuts(n + 1);
    for (int64_t i = 0; i <= n; i++) cuts[i] = from.offsets[first + i] - at;
    std::vector<float> some(2 * n);
    std::copy_n(&from.offsets[first + 1], n, &offsets[first + 1]);
    std::copy_n(from.tokens.data() + at * kDims, count * kDims, rows.data() + at * kDims);
    kernels.pack_bags(from.tokens.data() + at * kDims, kDims, cuts.data(), n, codes.data() + at * kDims, kDims,
                      scales.data() + at, sums.data() + at, some.data());
    std::copy_n(some.data(), n, bounds.data() + first);
    std::copy_n(some.data() + n, n, bounds.data() + documents + first);
  }

  void copy(const Tokens& from, int64_t first, int64_t n) {
    int64_t at = from.offsets[first], count = from.offsets[first + n] - at;
    for (int64_t i = 0; i <= n; i++) offsets[i] = from.offsets[first + i] - at;
    std::copy_n(from.codes.data() + at * kDims, count * kDims, codes.data());
    std::copy_n(from.scales.data() + at, count, scales.data());
    std::copy_n(from.sums.data() + at, count, sums.data());
    std::copy_n(from.bounds.data() + first, n, bounds.data());
    std::copy_n(from.bounds.data() + from.documents + first, n, bounds.data() + documents);
  }
};

// Queries as kernels read them.
struct Packed {
  std::vector<float> x;
  std::vector<double> wide, multiply, offset;
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<float> stats;
  std::vector<uint64_t> digits, bits;
  std::vector<int8_t> coarse;
  std::vector<uint8_t> panels;
  std::vector<float> steps;
  int64_t one_bag[2] = {0, 3}, panel_cuts[2] = {0, 1};
  float bag_bounds[2] = {1.5f, 0.5f};

  Packed(const Source& from, std::mt19937& random)
      : x(from.x.begin(), from.x.begin() + kQueries * kDims),
        multiply(kPadded),
        offset(kPadded),
        codes(kPadded * kStride),
        sums(kLevels * kPadded),
        stats((3 * kLevels + 1) * kPadded),
        digits(kDigits * 2),
        bits(kQueries * 2),
        coarse(128),
        panels(kPanelBytes),
        steps(16, 0.01f) {
    for (float& value : x) value += std::normal_distribution<float>()(random);
    wide.assign(x.begin(), x.end());
    kernels.pack_queries(x.data(), kQueries, kDims, kBounds, kLevels, kL2, codes.data(), kStride, sums.data(),
                         stats.data(), kPadded, multiply.data(), offset.data());
    auto word = [&] { return uint64_t(random()) << 32 | random(); };
    for (int64_t i = 0; i < kDigits; i++) {
      digits[2 * i] = word() << 32;  // the first level has 32 dims
      digits[2 * i + 1] = word();
    }
    for (int64_t i = 0; i < kQueries; i++) {
      bits[2 * i] = word() << 32;
      bits[2 * i + 1] = word();
    }
    for (int64_t i = 0; i < 128; i++) coarse[i] = i < 32 || i >= 64 ? int8_t(int(random() % 255) - 127) : int8_t(0);
    for (int64_t i = 0; i < kDims * 16; i++) panels[i] = uint8_t(random());
  }

  CodeQuery coded(bool signs) const {
    if (signs) return {digits.data(), kDigits, 2, 3, 0.25f};
    return {coarse.data(), 1, 128, 100, 0.25f};
  }
  CodedBagQueries bags() const { return {panels.data(), kPanelBytes, steps.data(), panel_cuts, bag_bounds, 1}; }
};

struct Part {
  const Planes* planes;
  int64_t last, base;  // rows [0, last), of which row 0 is row `base` of the segment
};

struct Ranked {
  double score;
  int64_t id;
};
bool operator==(const Ranked& a, const Ranked& b) { return a.score == b.score && a.id == b.id; }
bool before(const Ranked& a, const Ranked& b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

enum Code { kB1, kI4, kI8 };

CodePlane plane_of(const Planes& p, Code code, int64_t levels) {
  switch (code) {
    case kB1:
      return {p.words.data(), p.word_starts, kBounds, p.sign_factors.data(), kLevels, p.capacity, levels, 1};
    case kI4:
      return {p.nibbles.data(), p.nibble_starts, kBounds, p.nibble_factors.data(), kLevels, p.capacity, levels, 1};
    default:
      return {p.codes.data(), p.starts, kBounds, p.stats.data(), kLevels, p.capacity, levels, kL2};
  }
}

struct Listed {
  std::vector<int32_t> rows, sums;
  std::vector<float> values;
  int64_t count = 0;

  explicit Listed(int64_t room) : rows(room), sums(room), values(room) {}
  Shortlist out() { return {rows.data(), sums.data(), values.data(), &count, int64_t(rows.size())}; }
};

// Estimates of all rows by a code, in order: the first level scanned, the second added for listed rows.
Listed estimates(const std::vector<Part>& parts, const Packed& packed, Code code) {
  ScanCodes* scans[] = {&kernels.scan_b1, &kernels.scan_i4, &kernels.scan_i8};
  ListCodes* lists[] = {&kernels.list_b1, &kernels.list_i4, &kernels.list_i8};
  CodeQuery query = packed.coded(code == kB1);
  Listed all(kCapacity + kBlock);
  for (const Part& part : parts) {
    int64_t begin = all.count;
    scans[code](plane_of(*part.planes, code, 1), query, kLowest, kCapacity, 0, part.last, kBlock, 0, nullptr,
                all.out());
    Shortlist list = all.out();
    list.rows += begin;
    list.sums += begin;
    list.values += begin;
    lists[code](plane_of(*part.planes, code, 2), query, 1, all.count - begin, list);
    for (int64_t i = begin; i < all.count; i++) all.rows[i] += int32_t(part.base);
  }
  return all;
}

// Hamming distances of the first two queries to all rows, (2, n).
std::vector<int32_t> distances(const std::vector<Part>& parts, const Packed& packed, int64_t n) {
  std::vector<int32_t> all(2 * n), some(2 * kCapacity);
  for (const Part& part : parts) {
    Words words{part.planes->bits.data(), part.planes->word_starts, kBounds, kLevels};
    kernels.count_bits(words, {packed.bits.data(), 2, 2, kDims, kXor}, 0, part.last, some.data());
    for (int64_t i = 0; i < 2; i++) std::copy_n(some.data() + i * part.last, part.last, all.data() + i * n + part.base);
  }
  return all;
}

// The right answers for any number of rows.
struct Truth {
  std::vector<Ranked> ranked[kQueries], prefix[kQueries];  // all rows, by all dims and by the first 50
  std::vector<float> estimated[3];
  std::vector<int32_t> distances;
  std::vector<float> bag_bounds;
  std::vector<double> maxsim;
};

struct Room {
  std::vector<uint8_t> memory;
  Room() : memory(20 * 16 + 4 * kDims * (16 + 128) + 128) {}
  uint8_t* aligned() { return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64); }
};

std::vector<double> maxsim(const Tokens& tokens, const Packed& packed, int64_t n) {
  std::vector<int64_t> docs(n);
  for (int64_t i = 0; i < n; i++) docs[i] = i;
  std::vector<double> out(n);
  Room room;
  Documents all{tokens.rows.data(), kDims, kDims, nullptr, tokens.offsets.data()};
  kernels.maxsim_f32({packed.wide.data(), 3, packed.one_bag, 1}, all, docs.data(), n, room.aligned(), out.data());
  return out;
}

void bound_bags(const Tokens& tokens, const Packed& packed, const uint8_t* allowed, int64_t last, float* out) {
  CodedBags bags{tokens.codes.data(),  kDims,           tokens.scales.data(), tokens.sums.data(), tokens.offsets.data(),
                 tokens.bounds.data(), tokens.documents};
  if (last) kernels.scan_bags(bags, packed.bags(), 0, last, {allowed, 0}, out);
}

std::vector<Ranked> best_by_rows(const float* rows, int64_t n, const uint64_t* allowed, const Packed& packed,
                                 int64_t query, int64_t dims, int64_t k) {
  std::vector<double> scores(k, -std::numeric_limits<double>::infinity());
  std::vector<int64_t> ids(k, -1);
  kernels.topk_f32({packed.wide.data() + query * kDims, 1, kDims, kL2}, {rows, kDims, n, dims, nullptr, 0},
                   {allowed, 0}, {scores.data(), ids.data(), k});
  std::vector<Ranked> best;
  for (int64_t i = 0; i < k; i++)
    if (ids[i] >= 0) best.push_back({scores[i], ids[i]});
  std::sort(best.begin(), best.end(), before);
  return best;
}

Truth truth_of(const Source& source, const Packed& packed) {
  Planes planes(kCapacity);
  planes.write(source, 0, kCapacity);
  Tokens tokens(kDocuments, source.offsets.back());
  tokens.write(source, 0, kDocuments);
  Truth truth;
  std::vector<Part> all{{&planes, kCapacity, 0}};
  for (int64_t i = 0; i < kQueries; i++) {
    truth.ranked[i] = best_by_rows(planes.rows.data(), kCapacity, nullptr, packed, i, kDims, kCapacity);
    truth.prefix[i] = best_by_rows(planes.rows.data(), kCapacity, nullptr, packed, i, 50, kCapacity);
  }
  for (Code code : {kB1, kI4, kI8}) truth.estimated[code] = estimates(all, packed, code).values;
  truth.distances = distances(all, packed, kCapacity);
  truth.bag_bounds.resize(kDocuments);
  bound_bags(tokens, packed, nullptr, kDocuments, truth.bag_bounds.data());
  truth.maxsim = maxsim(tokens, packed, kDocuments);
  return truth;
}

// What is published: replaced as a whole, never changed.
struct State {
  int64_t n = 0, documents = 0;
  std::vector<uint64_t> allowed = std::vector<uint64_t>(kCapacity / 64, ~uint64_t(0));

  bool has(int64_t row) const { return row < n && allowed[row / 64] >> row % 64 & 1; }
};

std::vector<Ranked> first_of(const std::vector<Ranked>& ranked, const State& state) {
  std::vector<Ranked> best;
  for (const Ranked& one : ranked)
    if (best.size() < size_t(kFound) && state.has(one.id)) best.push_back(one);
  return best;
}

struct World {
  Planes planes{kCapacity};
  Tokens tokens;
  std::deque<State> states;  // all that were ever published
  std::atomic<const State*> current;
  std::atomic<bool> done{false};

  explicit World(const Source& source) : tokens(kDocuments, source.offsets.back()) {
    states.emplace_back();
    current.store(&states.back(), std::memory_order_release);
  }
};

struct Reader {
  const World& world;
  const Packed& packed;
  const Truth& truth;
  bool copies;
  Planes tail{kBlock};

  std::vector<Part> parts(const State& state) {
    int64_t whole = copies && state.n < kCapacity ? state.n / kBlock * kBlock : state.n;
    std::vector<Part> all;
    if (whole) all.push_back({&world.planes, whole, 0});
    if (whole == state.n) return all;
    tail = Planes(kBlock);
    tail.copy(world.planes, whole, state.n - whole);
    all.push_back({&tail, state.n - whole, whole});
    return all;
  }

  // Scan for candidates, then exact scores: for one query, and for several.
  void exact(const State& state, const std::vector<Part>& all) {
    for (int64_t count : {int64_t(1), kQueries}) {
      constexpr int64_t kRoom = 256;
      std::vector<float> thresholds(kPadded, std::numeric_limits<float>::infinity()), upper(count * kRoom);
      std::fill_n(thresholds.begin(), count, kLowest);
      std::vector<int32_t> rows(count * kRoom);
      std::vector<int64_t> counts(count), ids(count * kFound, -1);
      std::vector<double> scores(count * kFound, -std::numeric_limits<double>::infinity());
      Candidates found{rows.data(), upper.data(), counts.data(), kRoom};
      for (const Part& part : all) {
        const Planes& p = *part.planes;
        QueryBatch batch{packed.codes.data(),
                         packed.sums.data(),
                         packed.stats.data(),
                         thresholds.data(),
                         kBounds,
                         count,
                         kPadded,
                         kStride,
                         kLevels,
                         kL2,
                         {state.allowed.data() + part.base / kBlock, 0}};
        Plane plane{p.codes.data(), p.starts, p.stats.data(), p.blocks.data(), kLevels, p.capacity};
        Rows exact{world.planes.rows.data() + part.base * kDims, kDims, part.last, kDims, nullptr, part.base};
        for (int64_t at = 0; at < part.last;) {
          at = kernels.scan(plane, batch, at / kBlock % 2, at, std::min(part.last, at + 2 * kBlock), found);
          kernels.rescore_f32({packed.wide.data(), count, kDims, kL2}, exact, kRoom,
                              {packed.multiply.data(), packed.offset.data(), thresholds.data()}, found,
                              {scores.data(), ids.data(), kFound});
        }
      }
      for (int64_t i = 0; i < count; i++) {
        std::vector<Ranked> best;
        for (int64_t j = 0; j < kFound; j++)
          if (ids[i * kFound + j] >= 0) best.push_back({scores[i * kFound + j], ids[i * kFound + j]});
        std::sort(best.begin(), best.end(), before);
        need(best == first_of(truth.ranked[i], state), "scan", state.n);
      }
    }
  }

  void prefix(const State& state) {
    auto best = best_by_rows(world.planes.rows.data(), state.n, state.allowed.data(), packed, 0, 50, kFound);
    need(best == first_of(truth.prefix[0], state), "topk", state.n);
  }

  void coarse(const State& state, const std::vector<Part>& all, Code code) {
    const char* names[] = {"b1", "i4", "i8"};
    Listed found = estimates(all, packed, code);
    need(found.count == state.n, names[code], state.n);
    for (int64_t i = 0; i < found.count; i++)
      need(found.rows[i] == i && found.values[i] == truth.estimated[code][i], names[code], state.n);
  }

  void bits(const State& state, const std::vector<Part>& all) {
    auto found = distances(all, packed, state.n);
    for (int64_t i = 0; i < 2; i++)
      need(std::equal(&found[i * state.n], &found[i * state.n] + state.n, &truth.distances[i * kCapacity]),
           "count_bits", state.n);
    std::vector<int32_t> histogram(kDims + 1), limit(1, kDims), rows(2 * kCapacity), distance(2 * kCapacity);
    std::vector<int64_t> total(1), count(1);
    int64_t begin = 0;
    for (const Part& part : all) {
      Words words{part.planes->bits.data(), part.planes->word_starts, kBounds, kLevels};
      Nearest near{
          histogram.data(), limit.data(), total.data(), rows.data() + begin, distance.data() + begin, count.data(),
          kCapacity,        kFound,       true};
      count[0] = 0;
      kernels.scan_bits(words, {packed.bits.data(), 1, 2, kDims, kXor}, 0, part.last,
                        {state.allowed.data() + part.base / kBlock, 0}, near);
      for (int64_t i = begin; i < begin + count[0]; i++) rows[i] += int32_t(part.base);
      begin += count[0];
    }
    std::vector<Ranked> best, wanted;
    for (int64_t i = 0; i < begin; i++) best.push_back({-double(distance[i]), rows[i]});
    for (int64_t i = 0; i < state.n; i++)
      if (state.has(i)) wanted.push_back({-double(truth.distances[i]), i});
    size_t most = std::min<size_t>(kFound, wanted.size());
    for (auto* list : {&best, &wanted}) {
      std::sort(list->begin(), list->end(), before);
      need(list->size() >= most, "scan_bits", state.n);
      list->resize(most);
    }
    need(best == wanted, "scan_bits", state.n);
  }

  void bags(const State& state) {
    int64_t n = state.documents, whole = n;
    const Tokens& tokens = world.tokens;
    while (copies && n < kDocuments && whole && tokens.offsets[whole] + kBehind > tokens.offsets[n]) whole--;
    std::vector<float> bounds(n);
    std::vector<uint8_t> allowed(n);
    for (int64_t i = 0; i < n; i++) allowed[i] = state.allowed[i / 64] >> i % 64 & 1;
    bound_bags(tokens, packed, allowed.data(), whole, bounds.data());
    if (whole < n) {
      Tokens last(n - whole, tokens.offsets[n] - tokens.offsets[whole]);
      last.copy(tokens, whole, n - whole);
      bound_bags(last, packed, allowed.data() + whole, n - whole, bounds.data() + whole);
    }
    for (int64_t i = 0; i < n; i++) need(bounds[i] == (allowed[i] ? truth.bag_bounds[i] : kLowest), "scan_bags", n);
  }

  void tokens(const State& state) {
    auto found = maxsim(world.tokens, packed, state.documents);
    need(std::equal(found.begin(), found.end(), truth.maxsim.begin()), "maxsim", state.documents);
  }

  void run(const std::string& operation) {
    const State& state = *world.current.load(std::memory_order_acquire);
    if (state.n == 0) return std::this_thread::yield();
    auto all = parts(state);
    if (operation == "scan") exact(state, all);
    if (operation == "topk") prefix(state);
    if (operation == "b1") coarse(state, all, kB1);
    if (operation == "i4") coarse(state, all, kI4);
    if (operation == "i8") coarse(state, all, kI8);
    if (operation == "bits") bits(state, all);
    if (operation == "bags") bags(state);
    if (operation == "maxsim") tokens(state);
  }
};

void write_all(World& world, const Source& source, uint32_t seed) {
  std::mt19937 random(seed);
  while (true) {
    const State& now = world.states.back();
    if (now.n == kCapacity && now.documents == kDocuments) break;
    State next = now;
    if (random() % 4) {
      next.n = std::min(kCapacity, now.n + 1 + int64_t(random() % 40));
      next.documents = std::min(kDocuments, now.documents + 1 + int64_t(random() % 20));
      if (random() % 4 == 0) {  // an `add` that fails
        auto maxima = world.planes.maxima();
        world.planes.write(source, now.n, next.n - now.n);
        world.planes.restore(maxima, now.n);
      }
      world.planes.write(source, now.n, next.n - now.n);
      world.tokens.write(source, now.documents, next.documents - now.documents);
    } else {
      for (int i = 0; i < 5 && now.n; i++) {
        int64_t row = random() % now.n;
        next.allowed[row / 64] &= ~(uint64_t(1) << row % 64);
      }
    }
    world.states.push_back(next);
    world.current.store(&world.states.back(), std::memory_order_release);
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
  }
  world.done.store(true);
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 5) return 2;
  double seconds = atof(arguments[1]);
  uint32_t seed = uint32_t(atol(arguments[2]));
  bool copies = !strcmp(arguments[3], "copy");
  std::vector<std::string> operations(arguments + 4, arguments + count);
  std::mt19937 random(seed);
  Source source(random);
  Packed packed(source, random);
  Truth truth = truth_of(source, packed);
  auto begun = std::chrono::steady_clock::now();
  std::atomic<long> answers{0};
  int rounds = 0;
  do {
    World world(source);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < 8; i++)
      threads.emplace_back([&, i] {
        Reader reader{world, packed, truth, copies};
        for (size_t at = i; !world.done.load(); at++) {
          reader.run(operations[at % operations.size()]);
          answers.fetch_add(1, std::memory_order_relaxed);
        }
        for (const std::string& operation : operations) reader.run(operation);
      });
    write_all(world, source, seed + rounds++);
    for (std::thread& thread : threads) thread.join();
  } while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count() < seconds);
  printf("%d rounds, %ld answers\n", rounds, answers.load());
}
