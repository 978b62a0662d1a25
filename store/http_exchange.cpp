#include "store/http_exchange.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <new>

namespace coppice::store {

namespace {

constexpr long receive_bytes = 256 * 1024;
constexpr std::size_t words_bytes_max = 1024;
/// How often a thread that waits looks whether it is to stop.
constexpr std::chrono::milliseconds look_interval{100};

std::string seconds(std::chrono::milliseconds d) {
  return std::to_string(std::chrono::ceil<std::chrono::seconds>(d).count()) + " s";
}

} // namespace

http_connections::link http_connections::take() {
  {
    std::lock_guard lock{mutex_};
    if (!idle_.empty()) {
      auto l = std::move(idle_.back());
      idle_.pop_back();
      return l;
    }
  }
  init_curl();
  link l{std::unique_ptr<CURLM, free_multi>{curl_multi_init()}, curl_handle{curl_easy_init()}};
  if (!l.multi || !l.easy) throw std::bad_alloc();
  curl_multi_setopt(l.multi.get(), CURLMOPT_MAXCONNECTS, 1L);
  return l;
}

void http_connections::give_back(link l) {
  curl_easy_reset(l.easy.get());
  std::lock_guard lock{mutex_};
  if (idle_.size() < idle_max_) idle_.push_back(std::move(l));
}

http_exchange::http_exchange(http_connections& connections, http_request request, const http_patience& patience,
                             std::size_t ahead_bytes_max, const std::atomic<bool>& stop)
    : connections_(connections)
    , link_(connections.take())
    , request_(std::move(request))
    , patience_(patience)
    , ahead_bytes_max_(ahead_bytes_max)
    , stop_(stop) {
  set_up();
  if (curl_multi_add_handle(link_.multi.get(), link_.easy.get()) != CURLM_OK) throw std::bad_alloc();
}

http_exchange::~http_exchange() {
  curl_multi_remove_handle(link_.multi.get(), link_.easy.get());
  curl_slist_free_all(headers_);
  connections_.give_back(std::move(link_));
}

void http_exchange::set_up() {
  const auto easy = link_.easy.get();
  const auto self = static_cast<void*>(this);
  for (const auto& header : request_.headers)
    headers_ = curl_slist_append(headers_, header.c_str());
  set_curl(easy, CURLOPT_URL, request_.url.c_str());
  set_curl(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  set_curl(easy, CURLOPT_PROXY, "");
  set_curl(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set_curl(easy, CURLOPT_USERAGENT, "coppice");
  set_curl(easy, CURLOPT_NOSIGNAL, 1L);
  set_curl(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(patience_.connect_max.count()));
  set_curl(easy, CURLOPT_SOCKOPTFUNCTION, &http_exchange::on_socket);
  set_curl(easy, CURLOPT_SOCKOPTDATA, self);
  set_curl(easy, CURLOPT_BUFFERSIZE, receive_bytes);
  set_curl(easy, CURLOPT_ERRORBUFFER, words_);
  set_curl(easy, CURLOPT_HTTPHEADER, headers_);
  set_curl(easy, CURLOPT_WRITEFUNCTION, &http_exchange::on_body);
  set_curl(easy, CURLOPT_WRITEDATA, self);
  if (request_.method == "HEAD")
    set_curl(easy, CURLOPT_NOBODY, 1L);
  else if (request_.method != (request_.sends ? "PUT" : "GET"))
    set_curl(easy, CURLOPT_CUSTOMREQUEST, request_.method.c_str());
  if (!request_.sends) return;
  set_curl(easy, CURLOPT_UPLOAD, 1L);
  set_curl(easy, CURLOPT_UPLOAD_BUFFERSIZE, receive_bytes);
  set_curl(easy, CURLOPT_INFILESIZE_LARGE, static_cast<curl_off_t>(request_.sends->size));
  set_curl(easy, CURLOPT_READFUNCTION, &http_exchange::on_read);
  set_curl(easy, CURLOPT_READDATA, self);
  set_curl(easy, CURLOPT_SEEKFUNCTION, &http_exchange::on_seek);
  set_curl(easy, CURLOPT_SEEKDATA, self);
}

// A machine that does not even acknowledge what was sent is not one that works on its answer.
int http_exchange::on_socket(void* self, curl_socket_t socket, curlsocktype) {
  const auto silence_ms = static_cast<unsigned>(static_cast<http_exchange*>(self)->patience_.silence_max.count());
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms); // ignored: it is only slower then
  return CURL_SOCKOPT_OK;
}

std::size_t http_exchange::on_body(char* bytes, std::size_t, std::size_t size, void* self) {
  auto& x = *static_cast<http_exchange*>(self);
  x.headed_ = true;
  x.paused_ = x.held_.size() - x.taken_ >= x.ahead_bytes_max_;
  if (x.paused_) return CURL_WRITEFUNC_PAUSE;
  x.held_.append(bytes, size);
  x.moved_ += size;
  return size;
}

std::size_t http_exchange::on_read(char* into, std::size_t size, std::size_t count, void* self) {
  auto& x = *static_cast<http_exchange*>(self);
  auto got = x.request_.sends->read(x.sent_, {into, size * count});
  if (!got) {
    x.sends_failure_ = got.error();
    return CURL_READFUNC_ABORT;
  }
  x.sent_ += *got;
  x.moved_ += *got;
  return *got;
}

int http_exchange::on_seek(void* self, curl_off_t offset, int origin) {
  if (origin != SEEK_SET) return CURL_SEEKFUNC_CANTSEEK;
  static_cast<http_exchange*>(self)->sent_ = static_cast<std::uint64_t>(offset);
  return CURL_SEEKFUNC_OK;
}

// One step: returns when something has happened, or it is time to look again.
expected<void> http_exchange::advance() {
  if (failure_) return tl::unexpected(*failure_);
  const auto before = moved_;
  int running = 0, left = 0;
  if (curl_multi_perform(link_.multi.get(), &running) != CURLM_OK) throw std::bad_alloc();
  expected<void> done;
  if (auto* message = curl_multi_info_read(link_.multi.get(), &left); message && message->msg == CURLMSG_DONE)
    done = end(message->data.result);
  else if (moved_ != before)
    silent_ = {};
  else
    done = wait();
  if (!done) failure_ = done.error();
  return done;
}

expected<void> http_exchange::end(CURLcode how) {
  over_ = true;
  if (how == CURLE_OK) return headed_ = true, expected<void>{};
  if (sends_failure_) return tl::unexpected(*sends_failure_);
  return fail(ec::unavailable, request_.url + ": " + why_not(how, words_));
}

expected<void> http_exchange::wait() {
  if (stop_) return fail(ec::shutdown, "the transfer of " + request_.url + " was stopped");
  const bool works = !headed_ && request_.method != "GET" && request_.method != "HEAD" &&
                     (!request_.sends || sent_ == request_.sends->size);
  const auto allowed = works ? patience_.answer_max : patience_.silence_max;
  const std::chrono::milliseconds earned(moved_ / std::max<std::uint64_t>(1, patience_.bytes_per_second_min) * 1000);
  if (silent_ >= allowed) return fail(ec::unavailable, request_.url + ": silent for " + seconds(allowed));
  if (waited_ >= allowed + earned)
    return fail(ec::unavailable, request_.url + ": slower than " + std::to_string(patience_.bytes_per_second_min) +
                                     " bytes per second for " + seconds(allowed));
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(allowed - silent_);
  const auto since = std::chrono::steady_clock::now();
  curl_multi_poll(link_.multi.get(), nullptr, 0, static_cast<int>(std::min(left, look_interval).count()), nullptr);
  const auto took = std::chrono::steady_clock::now() - since;
  silent_ += took;
  waited_ += took;
  return {};
}

expected<long> http_exchange::status() {
  while (!headed_)
    if (auto done = advance(); !done && !headed_) return tl::unexpected(done.error()); // else bytes came before the end
  long status = 0;
  curl_easy_getinfo(link_.easy.get(), CURLINFO_RESPONSE_CODE, &status);
  return status;
}

std::string http_exchange::header(const char* name) const {
  curl_header* found = nullptr;
  return curl_easy_header(link_.easy.get(), name, 0, CURLH_HEADER, -1, &found) == CURLHE_OK ? found->value : "";
}

expected<std::size_t> http_exchange::read(std::span<char> into) {
  while (!holds() && !over_) {
    if (std::exchange(paused_, false)) curl_easy_pause(link_.easy.get(), CURLPAUSE_CONT); // may call on_body
    if (holds()) break;
    if (auto done = advance(); !done) return tl::unexpected(done.error());
  }
  if (!holds() && failure_) return tl::unexpected(*failure_);
  const auto taken = held_.copy(into.data(), into.size(), taken_);
  taken_ += taken;
  if (!holds()) {
    held_.clear();
    taken_ = 0;
  }
  return taken;
}

std::string http_exchange::words() {
  std::string text(words_bytes_max, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const auto got = read(std::span{text}.subspan(size));
    if (!got || *got == 0) break; // ignored: what came must do
    size += *got;
  }
  text.resize(size);
  while (!text.empty() && text.back() == '\n')
    text.pop_back();
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < ' ' || c == 0x7f; }, '?');
  return text;
}

} // namespace coppice::store
