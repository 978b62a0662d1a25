#include "apps/fetch/download.hpp"

#include "runtime/fd.hpp"
#include "store/files.hpp"
#include "store/upstream/http.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <thread>

namespace coppice::app {
namespace {

constexpr long redirects_max = 10;
constexpr const char* protocols = "http,https,ftp,ftps,file";
constexpr const char* protocols_of_redirects = "http,https,ftp,ftps";

/// One URL on its way into one file, in one or more tries.
class transfer {
public:
  transfer(const std::string& url, int fd, const std::filesystem::path& file, const download_options& options)
      : url_(url), fd_(fd), file_(file), options_(options) {}

  /// One try; an error with `again` may be mended by another.
  expected<void> run() {
    easy_.reset(curl_easy_init());
    if (!easy_) return refuse(ec::io, "libcurl cannot start");
    set_options();
    again = false;
    const auto code = curl_easy_perform(easy_.get());
    if (failure_) return tl::unexpected(*failure_);
    long status = 0;
    curl_easy_getinfo(easy_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status == 416 && had_ > 0) return start_over();
    if (code == CURLE_HTTP_RETURNED_ERROR) return judge(status);
    if (code == CURLE_RANGE_ERROR || code == CURLE_BAD_DOWNLOAD_RESUME) return start_over();
    if (code == CURLE_OK) return {};
    again = worth_another_try(code);
    return refuse(code == CURLE_FILE_COULDNT_READ_FILE ? ec::not_found : ec::io,
                  store::why_not(code, message_) + " (" + std::to_string(code) + ")");
  }

  bool again = false;

private:
  void set_options() {
    const auto easy = easy_.get();
    had_ = size_;
    message_[0] = '\0';
    store::set_curl(easy, CURLOPT_URL, url_.c_str());
    store::set_curl(easy, CURLOPT_PROTOCOLS_STR, protocols);
    store::set_curl(easy, CURLOPT_REDIR_PROTOCOLS_STR, protocols_of_redirects);
    store::set_curl(easy, CURLOPT_FOLLOWLOCATION, 1L);
    store::set_curl(easy, CURLOPT_MAXREDIRS, redirects_max);
    store::set_curl(easy, CURLOPT_FAILONERROR, 1L);
    store::set_curl(easy, CURLOPT_NOSIGNAL, 1L);
    store::set_curl(easy, CURLOPT_ERRORBUFFER, message_);
    store::set_curl(easy, CURLOPT_USERAGENT, "curl/" LIBCURL_VERSION " coppice");
    store::set_curl(easy, CURLOPT_CONNECTTIMEOUT, static_cast<long>(options_.connect_timeout.count()));
    store::set_curl(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    store::set_curl(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.stall_timeout.count()));
    if (!options_.ca_bundle.empty()) store::set_curl(easy, CURLOPT_CAINFO, options_.ca_bundle.c_str());
    if (had_ > 0) store::set_curl(easy, CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(had_));
    store::set_curl(easy, CURLOPT_WRITEFUNCTION, &transfer::on_body);
    store::set_curl(easy, CURLOPT_WRITEDATA, this);
  }

  static std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self) {
    auto& t = *static_cast<transfer*>(self);
    auto done = t.take({bytes, size});
    if (done) return size;
    t.failure_ = done.error();
    return 0; // not all taken: libcurl ends the transfer
  }

  expected<void> take(std::string_view bytes) {
    if (auto done = store::write_all(fd_, bytes, file_); !done) return done;
    size_ += bytes.size();
    return {};
  }

  expected<void> empty() {
    size_ = had_ = 0;
    if (::ftruncate(fd_, 0) < 0 || ::lseek(fd_, 0, SEEK_SET) < 0)
      return tl::unexpected(store::system_error(errno, "cannot empty " + file_.string()));
    return {};
  }

  /// What was had so far is of no use.
  expected<void> start_over() {
    again = true;
    if (auto done = empty(); !done) return done;
    return refuse(ec::io, "the transfer cannot be continued");
  }

  expected<void> judge(long status) {
    again = status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505 && status != 511);
    const auto kind = status == 404 || status == 410                    ? ec::not_found
                      : status == 401 || status == 403 || status == 407 ? ec::forbidden
                                                                        : ec::io;
    return refuse(kind, "HTTP error " + std::to_string(status));
  }

  static bool worth_another_try(CURLcode code) {
    switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_REMOTE_ACCESS_DENIED:
    case CURLE_REMOTE_FILE_NOT_FOUND:
    case CURLE_FILE_COULDNT_READ_FILE:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_LOGIN_DENIED:
    case CURLE_OUT_OF_MEMORY: return false;
    default: return true;
    }
  }

  expected<void> refuse(ec kind, const std::string& why) const {
    return fail(kind, "unable to download '" + url_ + "': " + why);
  }

  const std::string& url_;
  int fd_;
  const std::filesystem::path& file_;
  const download_options& options_;
  store::curl_handle easy_;
  std::optional<error> failure_; ///< why the file could not be written
  std::uint64_t size_ = 0, had_ = 0;
  char message_[CURL_ERROR_SIZE] = {};
};

} // namespace

expected<void> download(const std::string& url, const std::filesystem::path& file, const download_options& options,
                        const std::function<void(std::string_view)>& say) {
  const rt::unique_fd fd{::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (!fd) return tl::unexpected(store::system_error(errno, "cannot make " + file.string()));
  store::init_curl();
  transfer one{url, fd.get(), file, options};
  auto delay = options.retry_first;
  for (unsigned tried = 1;; ++tried, delay *= 2) {
    auto done = one.run();
    if (done || !one.again || tried >= options.tries_max) return done;
    say(done.error().what + "; retrying in " + std::to_string(delay.count()) + " ms (try " + std::to_string(tried) +
        " of " + std::to_string(options.tries_max) + ")");
    std::this_thread::sleep_for(delay);
  }
}

} // namespace coppice::app
