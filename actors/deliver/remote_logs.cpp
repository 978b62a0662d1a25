#include "actors/deliver/remote_logs.hpp"

#include "actors/deliver/http_server.hpp"

#include <httplib.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <vector>

namespace coppice::actors {

namespace {

constexpr const char* text_type = "text/plain; charset=utf-8";
constexpr std::size_t piece_bytes = 64 * 1024;
/// Received of a log before its reader takes it.
constexpr std::size_t ahead_bytes_max = 256 * 1024;
constexpr store::http_patience patience{.connect_max = std::chrono::seconds{5}};

std::optional<std::size_t> length_of(const store::http_exchange& answer) {
  const auto text = answer.header("Content-Length");
  std::size_t length = 0;
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), length);
  if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return length;
}

std::shared_ptr<void> one_more(std::atomic<std::size_t>& n) {
  ++n;
  return {nullptr, [&n](void*) { --n; }};
}

} // namespace

void remote_logs::get(const httplib::Request& req, httplib::Response& res, const inhash& key, fence token) {
  auto mine = one_more(readers_);
  if (readers_ > readers_max_)
    return respond(res, 503, std::to_string(readers_max_) + " logs are being passed on already");
  const auto there = find_(key, token);
  if (!there) return respond(res, there.error().code == ec::not_found ? 404 : 503, there.error().what);
  store::http_request ask{
      req.method, *there + "/attempt/" + key.to_string() + "-" + std::to_string(token.value), {}, {}};
  if (req.has_header("Range")) ask.headers.push_back("Range: " + req.get_header_value("Range"));
  auto answer = std::make_shared<store::http_exchange>(connections_, std::move(ask), patience, ahead_bytes_max, stop_);
  const auto status = answer->status();
  if (!status) return respond(res, 503, *there + ", which has the log, does not answer: " + status.error().what);
  for (const auto* name : {"Content-Range", "Accept-Ranges", "X-Coppice-Log"})
    if (auto value = answer->header(name); !value.empty()) res.set_header(name, value);
  if (*status == 404 || *status == 416) return respond(res, static_cast<int>(*status), answer->words());
  const auto length = length_of(*answer);
  if ((*status != 200 && *status != 206) || !length)
    return respond(res, 503, *there + ", which has the log, answers " + std::to_string(*status));
  res.status = static_cast<int>(*status);
  if (req.method == "HEAD") {
    res.set_header("Content-Type", text_type);
    res.set_header("Content-Length", std::to_string(*length));
    return;
  }
  if (*length == 0) return res.set_content("", text_type);
  res.set_content_provider(*length, text_type, [answer, mine](std::size_t, std::size_t left, httplib::DataSink& sink) {
    std::vector<char> piece(std::min(left, piece_bytes));
    const auto got = answer->read(piece);
    // a failure cuts the connection off: the length was promised
    return got && *got > 0 && sink.write(piece.data(), *got);
  });
}

} // namespace coppice::actors
