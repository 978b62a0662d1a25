#include "actors/deliver/http_answers.hpp"

#include <httplib.h>

namespace coppice::actors {

namespace {

int status_of(ec code) {
  switch (code) {
  case ec::invalid: return 422;
  case ec::bad_message:
  case ec::corrupt: return 400;
  case ec::limit_exceeded: return 413;
  case ec::missing:
  case ec::conflict: return 409;
  case ec::forbidden: return 403;
  case ec::unsupported: return 415;
  case ec::storage_full: return 507;
  case ec::io: return 500;
  default: return 503; // what the ledger and the way to it may answer; all of it passes
  }
}

} // namespace

void respond_with(httplib::Response& res, const error& e) {
  const int status = status_of(e.code);
  if (status == 503) res.set_header("Retry-After", "1");
  respond(res, status, e.what);
}

void respond_unknown(httplib::Response& res, const std::string& text) {
  respond(res, 401, text);
  res.set_header("WWW-Authenticate", "Bearer");
}

std::string ticket_of(const httplib::Request& req) {
  constexpr std::string_view scheme = "Bearer ";
  const auto word = req.get_header_value("Authorization");
  return word.starts_with(scheme) ? word.substr(scheme.size()) : std::string{};
}

expected<void> take_body(const body_reader& body, std::uint64_t bytes_max, const store::byte_sink& into) {
  expected<void> done;
  std::uint64_t taken = 0;
  const bool whole = body([&](std::string_view bytes) {
    taken += bytes.size();
    done = taken > bytes_max ? fail(ec::limit_exceeded, "the upload is larger than the " + std::to_string(bytes_max) +
                                                            " bytes that are allowed")
                             : into(bytes);
    return done.has_value();
  });
  if (done && !whole) return fail(ec::bad_message, "the upload broke off after " + std::to_string(taken) + " bytes");
  return done;
}

} // namespace coppice::actors
