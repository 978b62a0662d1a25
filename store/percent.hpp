#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace coppice::store {

/// Percent-encoded (RFC 3986): all but letters, digits, "-._~" and the characters of `also_plain`, in upper-case hex.
std::string percent_encoded(std::string_view text, std::string_view also_plain = {});
/// The bytes meant; none if a '%' is not followed by two hexadecimal digits.
std::optional<std::string> percent_decoded(std::string_view text);

} // namespace coppice::store
