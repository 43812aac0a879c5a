// Compiled once per instruction set (CMakeLists.txt lists them). Everything but the table has internal linkage: another
// global symbol could be merged with another variant's and run instructions this CPU lacks, so the build refuses it.
#include "kernels.h"
#include "kernels/bags.h"
#include "kernels/bits.h"
#include "kernels/checksum.h"
#include "kernels/codes.h"
#include "kernels/coding.h"
#include "kernels/convert.h"
#include "kernels/estimate.h"
#include "kernels/exact.h"
#include "kernels/fde.h"
#include "kernels/fitted.h"
#include "kernels/maxsim.h"
#include "kernels/pack.h"
#include "kernels/scan.h"
#include "kernels/select.h"
#include "kernels/transform.h"

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
    .crc32c = crc32c,
    .pack_rows = pack_rows,
    .pack_queries = pack_queries,
    .scan = scan,
    .sign_bits_f32 = sign_bits<float>,
    .sign_bits_f64 = sign_bits<double>,
    .pack_words = pack_words,
    .count_bits = count_bits,
    .scan_bits = scan_bits,
    .list_bits = list_bits,
    .order_bits = order_bits,
    .pack_signs = pack_signs,
    .pack_nibbles = pack_nibbles,
    .code_queries = code_queries,
    .scan_b1 = scan_codes<Signs>,
    .scan_i4 = scan_codes<Nibbles>,
    .scan_i8 = scan_codes<Bytes>,
    .list_b1 = list_codes<Signs>,
    .list_i4 = list_codes<Nibbles>,
    .list_i8 = list_codes<Bytes>,
    .keep_best = keep_best,
    .order_best = order_best,
    .simhash = simhash,
    .encode_bags = encode_bags,
    .project_tokens = project_tokens,
    .encode_probes = encode_probes,
    .transform_rows = transform_rows,
    .scores_f32 = scores<F32Rows>,
    .scores_f16 = scores<F16Rows>,
    .scores_bf16 = scores<BF16Rows>,
    .topk_f32 = topk<F32Rows>,
    .topk_f16 = topk<F16Rows>,
    .topk_bf16 = topk<BF16Rows>,
    .list_f32 = list_rows<F32Rows>,
    .list_f16 = list_rows<F16Rows>,
    .list_bf16 = list_rows<BF16Rows>,
    .rescore_f32 = rescore<F32Rows>,
    .rescore_f16 = rescore<F16Rows>,
    .rescore_bf16 = rescore<BF16Rows>,
    .maxsim_f32 = maxsim<F32Tokens>,
    .maxsim_f16 = maxsim<F16Tokens>,
    .maxsim_bf16 = maxsim<BF16Tokens>,
    .maxsim_i8 = maxsim<I8Tokens>,
    .pack_bags = pack_bags,
    .scan_bags = scan_bags,
};
}  // namespace nestvec
