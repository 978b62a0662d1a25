#include "actors/settings.hpp"

namespace coppice::actors {

std::string url_for_others(const node_settings& s) {
  if (!s.http_url.empty()) return s.http_url.ends_with('/') ? s.http_url.substr(0, s.http_url.size() - 1) : s.http_url;
  const auto colon = s.http.rfind(':');
  if (colon == std::string::npos) return {};
  const auto host = s.http.substr(0, colon), port = s.http.substr(colon + 1);
  for (const auto* own : {"", "0.0.0.0", "*", "[::]", "[::1]", "localhost"})
    if (host == own) return {};
  if (host.starts_with("127.") || port == "0") return {};
  return "http://" + s.http;
}

bool is_for_others(const std::string& url) {
  for (auto* own : {"//0.0.0.0:", "//[::]:", "//127.", "//[::1]:", "//localhost:"})
    if (url.find(own) != url.npos) return false;
  return true;
}

} // namespace coppice::actors
