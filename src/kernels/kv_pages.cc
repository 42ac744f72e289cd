#include "kernels/kv_pages.h"

#include <cstring>

#include "base/half.h"
#include "kernels/attention.h"

namespace pare::kernels {
namespace {

template <class Stored, class Convert>
void store_key_as(const float* key, int head_dim, std::byte* page, int slot, Convert convert) {
  for (int64_t d = 0; d < head_dim; ++d) {
    const Stored stored = convert(key[d]);
    std::memcpy(page + (d * kKvPageTokens + slot) * static_cast<int64_t>(sizeof stored), &stored, sizeof stored);
  }
}

template <class Stored, class Convert>
void store_value_as(const float* value, int value_dim, std::byte* page, int slot, Convert convert) {
  const int64_t padded = padded_value_dim(value_dim);
  std::byte* row = page + slot * padded * static_cast<int64_t>(sizeof(Stored));
  for (int64_t d = 0; d < padded; ++d) {
    const Stored stored = convert(d < value_dim ? value[d] : 0.0f);
    std::memcpy(row + d * static_cast<int64_t>(sizeof stored), &stored, sizeof stored);
  }
}

float same(float x) { return x; }

}  // namespace

int64_t PagesF32::key_page_bytes(int head_dim) { return int64_t{kKvPageTokens} * head_dim * kBytes; }
int64_t PagesF32::value_page_bytes(int value_dim) { return kKvPageTokens * padded_value_dim(value_dim) * kBytes; }
void PagesF32::store_key(const float* key, int head_dim, std::byte* page, int slot) {
  store_key_as<float>(key, head_dim, page, slot, same);
}
void PagesF32::store_value(const float* value, int value_dim, std::byte* page, int slot) {
  store_value_as<float>(value, value_dim, page, slot, same);
}

int64_t PagesF16::key_page_bytes(int head_dim) { return int64_t{kKvPageTokens} * head_dim * kBytes; }
int64_t PagesF16::value_page_bytes(int value_dim) { return kKvPageTokens * padded_value_dim(value_dim) * kBytes; }
void PagesF16::store_key(const float* key, int head_dim, std::byte* page, int slot) {
  store_key_as<uint16_t>(key, head_dim, page, slot, float_to_f16);
}
void PagesF16::store_value(const float* value, int value_dim, std::byte* page, int slot) {
  store_value_as<uint16_t>(value, value_dim, page, slot, float_to_f16);
}

}  // namespace pare::kernels
