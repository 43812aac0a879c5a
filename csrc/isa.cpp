// Compiled once per instruction set (CMakeLists.txt lists them). Everything but the table has internal linkage: another
// global symbol could be merged with another variant's and run instructions this CPU lacks, so the build refuses it.
#include "kernels.h"
#include "kernels/convert.h"
#include "kernels/exact.h"
#include "kernels/pack.h"
#include "kernels/scan.h"

namespace nestvec {
#define NESTVEC_JOIN2(a, b) a##b
#define NESTVEC_JOIN(a, b) NESTVEC_JOIN2(a, b)

extern constexpr Kernels NESTVEC_JOIN(kernels_, NESTVEC_ISA){
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .narrow_f16 = narrow_f16,
    .narrow_bf16 = narrow_bf16,
    .first_nonfinite = first_nonfinite,
    .sum_bytes = sum_bytes,
    .pack_rows = pack_rows,
    .pack_queries = pack_queries,
    .scan = scan,
    .scores_f32 = scores<F32Rows>,
    .scores_f16 = scores<F16Rows>,
    .scores_bf16 = scores<BF16Rows>,
    .topk_f32 = topk<F32Rows>,
    .topk_f16 = topk<F16Rows>,
    .topk_bf16 = topk<BF16Rows>,
    .rescore_f32 = rescore<F32Rows>,
    .rescore_f16 = rescore<F16Rows>,
    .rescore_bf16 = rescore<BF16Rows>,
};
}  // namespace nestvec
