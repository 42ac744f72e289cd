#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/cpu.h"
#include "tensor/tensor.h"

namespace pare::kernels {

// Products of stored weights with rows of activations: out[i][r] = sum over k of x[i][k] * W[r][k].
//
// A result depends only on its own weight row and activation row: not on how many of either are computed together, on
// threads or on the instruction set. Float types sum in 16 lanes (lane k mod 16, fused multiply-add, ascending k)
// folded 8-4-2-1; block types sum each block in integers, exactly, then one fused multiply-add a block, ascending.

/// How a product wants its activations prepared; prepared once and shared by every weight that reads them.
enum class InputFormat : uint8_t {
  kFloat,      // float32 as they are, 4 bytes a value: nothing to prepare
  kInt8Block,  // blocks of 32: int8 codes = round-half-even(x * 127 / absmax), float32 scale absmax / 127, int32 sum of
               // codes
  kInt8Row,    // one scale for the whole row: see ternary.h
  // kInt8Row and behind it tables of what groups of 2 or 3 codes add up to: see lut.h
  kInt8Pairs,
  kInt8Triples
};

inline constexpr size_t kInputFormats = 5;

/// One row of the input-format table.
struct InputFormatInfo {
  InputFormat format;
  const char* name;
  /// Bytes of one prepared row of `columns` values (a multiple of 64).
  int64_t (*row_bytes)(int64_t columns);
  /// Prepares one row; null for kFloat.
  void (*prepare)(const float* row, int64_t columns, std::byte* to);
  /// Prepares the RMS norm of one row (Elementwise::rms_norm), the same bits as one after the other; may be null.
  void (*prepare_normed)(const float* x, const float* gain, float eps, int64_t columns, std::byte* to) = nullptr;
  /// Bytes from one prepared row to the next: an odd number of cache lines, for what several rows hold of the same
  /// columns would meet in a few sets of the first-level cache if they lay a multiple of 4096 bytes apart. Rows that
  /// nothing prepares lie as they are.
  int64_t stride(int64_t columns) const { return prepare ? row_bytes(columns) | 64 : row_bytes(columns); }
};

/// The preparation that the given features serve (the same bits from each); by default what this process may use.
const InputFormatInfo& input_format(InputFormat format, CpuFeatures features);
const InputFormatInfo& input_format(InputFormat format);

struct MultiplyArgs {
  const std::byte* weights;  // the whole packed matrix
  int64_t weight_rows, columns;
  const std::byte* input;  // [input_rows] prepared rows
  int64_t input_stride;    // bytes from one to the next
  int64_t input_rows;
  float* output;               // [input_rows, output_stride], column = weight row
  int64_t output_stride;       // floats
  int64_t row_begin, row_end;  // weight rows to compute; row_begin is a multiple of the packing's row_group
  float scale = 1;             // of the whole matrix; only packings that say so apply it
  // What the same thread will read after these rows (null: not known), so that it is asked for before they end; and
  // whether these rows' beginning was asked for that way.
  const std::byte* then = nullptr;
  bool expected = false;
  // Where the same thread writes these outputs, or what it makes of them right after ([input_rows, written_stride];
  // null: it is near already): lines that other cores have read are asked for while these rows are computed.
  float* written = nullptr;
  int64_t written_stride = 0;
};

inline constexpr int64_t kPackedSlack = 256;

struct HeadBounds;

/// A layout of weights in memory and the product that reads it: one file per instruction set defines each.
struct Packing {
  DType source;
  const char* isa;        // "avx512vnni"
  bool in_place = false;  // reads the file's bytes as they are: pack is null, weights stay mapped
  int row_group;          // rows packed together; work is split at multiples of it
  InputFormat input;
  /// Bytes of a packed matrix (rows rounded up to row_group). kPackedSlack more must be readable behind it.
  int64_t (*packed_bytes)(int64_t rows, int64_t columns);
  /// Packs rows [row_begin, row_end) of `from` (row_begin a multiple of row_group) into the whole matrix at `packed`.
  void (*pack)(const TensorView& from, int64_t row_begin, int64_t row_end, std::byte* packed) = nullptr;
  /// Row `row` back as float32, exactly as the storage type decodes it.
  void (*unpack_row)(const std::byte* packed, int64_t rows, int64_t columns, int64_t row, float* to);
  void (*multiply)(const MultiplyArgs& args);
  /// multiply for a single activation row that reads weights as one stream where that reads several side by side: the
  /// same bits. Which is faster is up to what fetches from memory on a machine. Null where there is no choice.
  void (*multiply_one_stream)(const MultiplyArgs& args) = nullptr;
  /// A layout that is not the source type's own, and serves others than it: "i2"; null otherwise.
  const char* layout = nullptr;
  /// Of layouts in two parts (head.h).
  const HeadBounds* bounds = nullptr;
  /// Instead of pack, for ternary weights: packs rows [row_begin, row_end) from w + 1, codes: [row_end - row_begin,
  /// columns].
  void (*pack_codes)(const uint8_t* codes, int64_t columns, int64_t row_begin, int64_t row_end,
                     std::byte* packed) = nullptr;

  /// From so many activation rows on, weights are unpacked into panels of so many rows: pieces of a product are best
  /// multiples of them.
  int64_t panel_inputs = INT64_MAX;
  int64_t panel_rows = 0;
  /// And for each so many activation rows again: more may as well be dealt out as parts by themselves. Parts hold no
  /// more than so many bytes, either, where unpacking again costs less than activations from beyond a near cache.
  int64_t panel_input_rows = INT64_MAX, panel_input_bytes = INT64_MAX;

  /// multiply applies MultiplyArgs::scale; otherwise its caller does.
  bool applies_scale = false;
  /// So many activation rows or more are wanted in another format: what few rows gain by, many may not.
  int64_t many_rows = INT64_MAX;
  InputFormat many_input = InputFormat::kFloat;

  InputFormat input_for(int64_t input_rows) const { return input_rows < many_rows ? input : many_input; }
  /// "q8_0.avx512vnni", "i2.avx2"
  std::string name() const { return std::string(layout ? layout : info(source).name) + "." + isa; }
};

/// A row of the dispatch table: the first whose type matches and whose features the machine has serves.
struct KernelRow {
  DType source;
  CpuFeatures required;
  const Packing* packing;
};

/// The dispatch table, best first for each type.
std::span<const KernelRow> kernel_table();
/// The packing that serves a type under the given features. Throws Error if none does.
const Packing& packing_for(DType type, CpuFeatures features);

}  // namespace pare::kernels
