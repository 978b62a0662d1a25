#pragma once

#include "messages/errors.hpp"
#include "messages/ids.hpp"
#include "messages/reflect.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What goes over a connection between machines (docs/protocol.md): frames of two ZeroMQ parts, [envelope][body].
namespace coppice::rt {

inline constexpr std::uint32_t protocol_version_min = 1; ///< oldest version spoken
inline constexpr std::uint32_t protocol_version_max = 2; ///< newest
inline constexpr std::uint32_t bundles_since_version = 2;
inline constexpr std::string_view protocol_magic = "coppice";
/// Of a bundle; what is larger, or more, goes in frames of its own.
inline constexpr std::size_t bundle_frames_max = 64;
inline constexpr std::size_t bundle_bytes_max = 64 << 10;
/// Larger frames from a client break the connection.
inline constexpr std::size_t request_bytes_max = 1 << 20;
/// Larger answers are replaced by limit_exceeded.
inline constexpr std::size_t reply_bytes_max = 8 << 20;
inline constexpr std::size_t envelope_bytes_max = 8 << 10;
/// Longer reasons are cut.
inline constexpr std::size_t reason_bytes_max = 4 << 10;

/// Numbers are on the wire.
enum class frame_kind : std::uint8_t {
  none = 0,
  hello = 1,   ///< client: first frame; body hello
  welcome = 2, ///< node: session is open; body welcome
  refuse = 3,  ///< node: there is no session; code and what say why; after `unavailable` say hello again
  request = 4, ///< client: id, target, method; body the message
  reply = 5,   ///< node: id; body the answer
  error = 6,   ///< node: id, code, what
  ping = 7,    ///< either: id; the other answers at once
  pong = 8,    ///< id of the ping
  cast = 9,    ///< between nodes: target, method; body the message; nobody answers
  bundle = 10, ///< between nodes, from version 2 on; body several frames, which mean what they mean alone
  last_ = bundle
};

struct envelope {
  std::uint32_t version = protocol_version_min; ///< of an open session's frames: the one that was agreed on
  frame_kind kind = frame_kind::none;
  std::uint64_t id = 0;  ///< of a call, chosen by the caller
  std::string target;    ///< name of an exposed actor, e.g. "gateway"; between nodes the path of one
  std::string method;    ///< e.g. "submit"; between nodes with the message's name, e.g. "place lend"
  std::uint8_t code = 0; ///< an ec
  std::string what;
  std::string with;      ///< between nodes: path of the actor that is given along, or empty
  std::string whom;      ///< from a node: the key of a client of its, for whom it asks, or empty
  std::uint8_t whom_role = 0; ///< that key's role
  COPPICE_STRUCT(envelope, 1, version, 2, kind, 3, id, 4, target, 5, method, 6, code, 7, what, 8, with, 9, whom, 10,
                 whom_role)
};

struct hello {
  std::string magic;
  std::uint32_t min_version = 0, max_version = 0;
  std::string name;         ///< of the program, for logs; never believed
  std::string text;         ///< its version, for logs
  std::uint64_t stream = 0; ///< another number: calls made before are forgotten
  coppice::incarnation incarnation = {}; ///< of a node's process: an older one's session does not replace a newer one's
  COPPICE_STRUCT(hello, 1, magic, 2, min_version, 3, max_version, 4, name, 5, text, 6, stream, 7, incarnation)
};
struct welcome {
  std::uint32_t version = 0; ///< the highest that both speak
  node_id node;
  std::string text;                    ///< the node's software version
  std::uint64_t request_bytes_max = 0; ///< larger frames break the connection
  std::uint64_t ping_ms = 0;           ///< who is silent for three times as long is taken for dead
  coppice::incarnation incarnation = {};
  COPPICE_STRUCT(welcome, 1, version, 2, node, 3, text, 4, request_bytes_max, 5, ping_ms, 6, incarnation)
};

/// A frame in memory.
struct frame {
  rt::envelope head;
  std::string body;
};

/// The envelope's bytes; `what` is cut.
std::string encode_head(envelope head);
/// The envelope from a frame's first part, or bad_message.
expected<envelope> decode_head(std::string_view bytes);
/// Where a frame's two parts lie.
struct frame_view {
  std::string_view head, body;
};
/// What a frame adds to a bundle, at most.
std::size_t bundled_bytes(const frame& f);
/// Several frames, within the bounds, as one.
frame bundle_of(std::span<const frame* const> frames);
/// The frames of a bundle's body, in the order in which they were said, or bad_message.
expected<std::vector<frame_view>> decode_bundle(std::string_view body);

/// What an error or refuse frame says; codes that this build does not know become `unsupported`.
error error_of(const envelope& head);
envelope error_head(std::uint64_t id, const error& e);

} // namespace coppice::rt
