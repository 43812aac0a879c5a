// Signs by popcounts, for so few queries that tensor cores would mostly multiply zeros.
#pragma once
#include "tiles.h"

namespace nestvec::cuda {

constexpr int64_t MOST_BY_POPCOUNT = 2;  // queries

// Appends what scan_estimates does.
void scan_signs(const Scanned&, Stream);

}  // namespace nestvec::cuda
