#pragma once

#include "messages/errors.hpp"

#include <functional>
#include <string_view>

namespace coppice::store {

/// Takes the next bytes of a stream, valid during the call only; an error ends the stream.
using byte_sink = std::function<expected<void>(std::string_view)>;

/// Writes a whole stream into a sink, in pieces of any size; passes the sink's error on.
using byte_source = std::function<expected<void>(const byte_sink&)>;

} // namespace coppice::store
