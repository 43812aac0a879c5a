// Where a query's codes are not all zero, in units of the planes: words of signs, lines of bytes. What meets zeros
// alone is not read, which leaves sums as they are.
#pragma once
#include "pack.h"

namespace nestvec {
namespace {

// All units in order, for queries without enough zeros: addresses that the compiler knows, a tenth faster than a list.
struct AllUnits {
  int64_t operator[](int64_t i) const { return i; }
};

// Behind the units of a level come, for `kUnitsAhead` places, its first ones in the rows that follow: the unit to ask
// for is always so many places ahead. Where they are more than 3 of 4, all are listed.
template <int64_t kMost, int64_t kUnitsAhead>
class Units {
 public:
  struct Level {
    const uint32_t *begin, *end;
  };
  int64_t count = 0;

  Units() = default;
  Units(const Units&) = delete;  // levels point into it

  const Level& operator[](int64_t level) const { return levels_[level]; }

  // The next level, of `wide` units: those for which `used(unit)`.
  template <class Used>
  void add(int64_t wide, Used used) {
    uint32_t *begin = end_, *end = begin;
    for (int64_t unit = 0; unit < wide; unit++)
      if (used(unit)) *end++ = uint32_t(unit);
    if (4 * (end - begin) > 3 * wide)
      for (end = begin; end < begin + wide; end++) *end = uint32_t(end - begin);
    levels_[size_++] = {begin, end};
    if (end == begin) return;
    count += end - begin;
    end_ = end + kUnitsAhead;
    for (; end < end_; begin++, end++) *end = *begin + uint32_t(wide);
  }

 private:
  Level levels_[kMaxLevels];
  int64_t size_ = 0;
  uint32_t places_[kMost + kMaxLevels * kUnitsAhead];
  uint32_t* end_ = places_;
};

}  // namespace
}  // namespace nestvec
