#pragma once

#include "store/upstream/http.hpp"
#include "store/upstream/upstream.hpp"

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>

namespace coppice::store {

/// What the asking thread and those who download share.
struct upstream::shared {
  shared(upstream_options o, const rt::clock& c)
      : options(std::move(o)), clock(c), memory(options.urls, options.memory) {}
  const upstream_options options;
  const rt::clock& clock;
  std::atomic<bool> stopping{false};
  std::mutex mutex; ///< guards the memory
  upstream_memory memory;

  /// Calls `f(memory, now)` under the lock.
  template <class F>
  auto with_memory(F f) {
    std::lock_guard lock{mutex};
    return f(memory, clock.now());
  }
  /// Notes that this cache is wrong about the path, and says so in the log.
  void distrust(std::size_t cache, const nix::store_path& path, const std::string& why);
};

/// The thread that asks for narinfos: many at once, on few connections.
class upstream::asker {
public:
  explicit asker(std::shared_ptr<shared> s);
  ~asker();
  void ask(std::vector<nix::store_path> paths, answer done);
  void wake() { curl_multi_wakeup(multi_.get()); }

private:
  struct question {
    upstream_paths result;
    std::size_t open = 0;
    bool again = false;
    answer done;
  };
  /// A path of a question, and the caches that did not answer.
  struct item {
    std::shared_ptr<question> asked_by;
    nix::store_path path;
    std::set<std::size_t> silent;
  };
  struct transfer {
    curl_handle easy;
    std::size_t cache;
    std::optional<item> what; ///< none: the cache itself
    std::size_t bytes_max;
    std::string body;
    bool too_large = false;
    char words[CURL_ERROR_SIZE] = "";
    static std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self);
  };
  struct free_multi {
    void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
  };

  void run();
  void take_inbox();
  void pump();
  void step(item i);
  void start(std::size_t cache, std::optional<item> what, const std::string& file);
  void reap();
  void ended(transfer& t, CURLcode done);
  std::string heard(transfer& t, long status);
  void settle(const item& i);
  void give_up();

  const std::shared_ptr<shared> shared_;
  std::mutex mutex_; ///< guards the inbox, and how many questions have no answer yet
  std::size_t questions_ = 0;
  std::deque<std::pair<std::vector<nix::store_path>, answer>> inbox_;
  bool closed_ = false;
  std::deque<item> waiting_;
  std::map<CURL*, std::unique_ptr<transfer>> running_;
  std::set<std::size_t> introducing_; ///< caches that are asked what they are
  std::unique_ptr<CURLM, free_multi> multi_;
  std::thread thread_;
};

} // namespace coppice::store
