// Sets of rows that may be found: bit r % 64 of word r / 64 is row r; null is the set of all.
#pragma once
#include "../kernels.h"
#include "../simd.h"

namespace nestvec {
namespace {

// The rows of a block below `last` that a set has, one bit each.
inline uint64_t allowed_rows(const uint64_t* allowed, int64_t block, int64_t last) {
  uint64_t rows = allowed ? allowed[block / kBlock] : ~uint64_t(0);
  return last - block < kBlock ? rows & ~uint64_t(0) >> (kBlock - (last - block)) : rows;
}

// The sets of a batch, at one block after the other. Those that queries have of their own are far apart in memory, so a
// cache line of each, eight blocks, is taken at a time and words of one block then lie side by side.
class Sets {
 public:
  Sets(const Allowed& allowed, int64_t queries) : allowed_(allowed), queries_(queries) {}
  Sets(const Sets&) = delete;  // it points into itself

  void turn_to(int64_t block) {
    int64_t word = block / kBlock;
    if (!allowed_.words) return;
    step_ = allowed_.stride && queries_ <= kMost ? 1 : allowed_.stride;
    words_ = step_ == 1 ? side_by_side_[word % kTogether] : allowed_.words + word;
    if (step_ == 1 && word / kTogether != taken_) take(word / kTogether);
  }

  uint64_t of(int64_t query) const { return words_[query * step_]; }

  // What some of the queries [first, end) may find.
  uint64_t some(int64_t first, int64_t end) const {
    if (step_ != 1) return step_ ? ~uint64_t(0) : *words_;  // not worth the cache misses
    uint64_t rows = 0;
    for (; first < end; first++) rows |= words_[first];
    return rows;
  }

 private:
  static constexpr int64_t kMost = 1024, kTogether = kLine / 8;

  void take(int64_t line) {
    int64_t left = allowed_.stride - line * kTogether;
    for (int64_t query = 0; query < queries_; query++) {
      const uint64_t* words = allowed_.words + query * allowed_.stride + line * kTogether;
      __builtin_prefetch(words + kTogether);
      if (left >= kTogether)
        for (int64_t i = 0; i < kTogether; i++) side_by_side_[i][query] = words[i];
      else
        for (int64_t i = 0; i < left; i++) side_by_side_[i][query] = words[i];
    }
    taken_ = line;
  }

  const Allowed allowed_;
  const int64_t queries_;
  const uint64_t all_ = ~uint64_t(0), *words_ = &all_;
  int64_t step_ = 0, taken_ = -1;
  uint64_t side_by_side_[kTogether][kMost + 8];  // not a power of two apart: lines would compete for the same sets
};

}  // namespace
}  // namespace nestvec
