#pragma once
#include <string>

#include "redundancy/chart.h"
#include "redundancy/importance.h"

namespace pare {

/// Importance of every part by depth, on a logarithmic scale.
Chart importance_chart(const Redundancy& redundancy);
/// In which order parts would go: the first to be dropped is the strongest cell.
HeatStrip drop_order_strip(const Redundancy& redundancy);
/// Negligible attention by depth.
Chart sparsity_chart(const Redundancy& redundancy);
/// The largest activations by depth, on a logarithmic scale.
Chart outlier_chart(const Redundancy& redundancy);

/// What `pare analyze --html` writes: the charts, what they mean, and the numbers.
std::string redundancy_page(const Redundancy& redundancy, const std::string& model_name,
                            const std::string& calibration_name);

}  // namespace pare
