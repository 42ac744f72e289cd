#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace pare {

// What reading and writing GGUF share: the numbers of the specification.

inline constexpr char kGgufMagic[4] = {'G', 'G', 'U', 'F'};
inline constexpr uint32_t kGgufDefaultAlignment = 32;
inline constexpr int kGgufMaxRank = 4;
inline constexpr size_t kGgufMaxKeyBytes = 65535;
inline constexpr size_t kGgufMaxTensorNameBytes = 64;
inline constexpr uint32_t kGgufArray = 9;
inline constexpr uint32_t kGgufLastCode = 12;

/// gguf_metadata_value_type of a C++ type.
template <class T>
inline constexpr uint32_t kGgufCode = 0xffffffffu;
template <>
inline constexpr uint32_t kGgufCode<uint8_t> = 0;
template <>
inline constexpr uint32_t kGgufCode<int8_t> = 1;
template <>
inline constexpr uint32_t kGgufCode<uint16_t> = 2;
template <>
inline constexpr uint32_t kGgufCode<int16_t> = 3;
template <>
inline constexpr uint32_t kGgufCode<uint32_t> = 4;
template <>
inline constexpr uint32_t kGgufCode<int32_t> = 5;
template <>
inline constexpr uint32_t kGgufCode<float> = 6;
template <>
inline constexpr uint32_t kGgufCode<bool> = 7;
template <>
inline constexpr uint32_t kGgufCode<std::string> = 8;
template <>
inline constexpr uint32_t kGgufCode<uint64_t> = 10;
template <>
inline constexpr uint32_t kGgufCode<int64_t> = 11;
template <>
inline constexpr uint32_t kGgufCode<double> = 12;

}  // namespace pare
