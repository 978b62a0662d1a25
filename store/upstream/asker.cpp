#include "store/upstream/asker.hpp"

#include "runtime/log.hpp"

#include <filesystem>
#include <new>

namespace coppice::store {

namespace {

constexpr std::size_t cache_info_bytes_max = 64 << 10;
/// A question that trickles in ends after so many times the silence allowed.
constexpr long whole_answer_factor = 6;
constexpr int idle_ms = 60'000;
constexpr std::size_t small_question_paths_max = 8;
constexpr std::string_view file_scheme = "file://";

/// No "no" of a directory that is not there, as when nothing is mounted.
bool is_mounted(std::string_view url) {
  std::error_code ignored; // then it is not
  return !url.starts_with(file_scheme) ||
         std::filesystem::exists(std::filesystem::path{url.substr(file_scheme.size())} / "nix-cache-info", ignored);
}

} // namespace

void upstream::shared::distrust(std::size_t cache, const nix::store_path& path, const std::string& why) {
  with_memory([&](auto& m, auto now) { m.on_unusable(cache, path, now); });
  rt::log::warn("UPSTREAM", "cache not used for a path url={} path={} error={}", options.urls[cache], path.to_string(),
                why);
}

upstream::asker::asker(std::shared_ptr<shared> s) : shared_(std::move(s)) {
  init_curl();
  multi_.reset(curl_multi_init());
  if (!multi_) throw std::bad_alloc();
  curl_multi_setopt(multi_.get(), CURLMOPT_MAX_HOST_CONNECTIONS, shared_->options.connections_max);
  curl_multi_setopt(multi_.get(), CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
  thread_ = std::thread{[this] { run(); }};
}

upstream::asker::~asker() {
  wake();
  thread_.join();
  running_.clear(); // before their multi handle
}

void upstream::asker::ask(std::vector<nix::store_path> paths, answer done) {
  if (paths.empty()) return done({}, false);
  upstream_paths unknown;
  {
    std::lock_guard lock{mutex_};
    if (!closed_ && questions_ < shared_->options.questions_max) {
      ++questions_;
      inbox_.emplace_back(std::move(paths), std::move(done));
      return wake();
    }
    unknown.troubles = {closed_ ? "the node is stopping" : "too many questions to upstream caches wait"};
  }
  unknown.unknown = std::move(paths);
  done(std::move(unknown), true);
}

void upstream::asker::run() {
  while (!shared_->stopping) {
    take_inbox();
    pump();
    int running = 0;
    curl_multi_perform(multi_.get(), &running);
    reap();
    if (waiting_.empty() || running_.size() >= shared_->options.requests_max || !introducing_.empty())
      curl_multi_poll(multi_.get(), nullptr, 0, running_.empty() ? idle_ms : 1'000, nullptr);
  }
  give_up();
}

void upstream::asker::take_inbox() {
  std::lock_guard lock{mutex_};
  for (auto& [paths, done] : inbox_) {
    auto q = std::make_shared<question>();
    q->done = std::move(done);
    q->open = paths.size();
    // somebody blocks for the answer to a small question, and behind a large one it would have to wait long
    const bool first = paths.size() <= small_question_paths_max;
    for (auto& path : paths)
      waiting_.insert(first ? waiting_.begin() : waiting_.end(), {q, std::move(path), {}});
  }
  inbox_.clear();
}

void upstream::asker::pump() {
  while (!waiting_.empty() && running_.size() < shared_->options.requests_max) {
    for (auto cache : shared_->with_memory([](auto&memory, auto now) { return memory.strangers(now); }))
      if (!waiting_.front().silent.contains(cache) && introducing_.insert(cache).second)
        start(cache, {}, "nix-cache-info");
    if (!introducing_.empty()) return; // the order is not known yet
    auto i = std::move(waiting_.front());
    waiting_.pop_front();
    step(std::move(i));
  }
}

void upstream::asker::step(item i) {
  using kind = upstream_memory::verdict::kind;
  auto found = shared_->with_memory([&](auto& memory, auto now) { return memory.look(i.path, i.silent, now); });
  auto& q = *i.asked_by;
  switch (found.is) {
  case kind::ask: {
    auto file = std::string{i.path.hash_part()} + ".narinfo";
    return start(found.cache, std::move(i), file);
  }
  case kind::found: q.result.found.push_back(std::move(found.what.info)); break;
  case kind::unknown: q.result.unknown.push_back(i.path); break;
  case kind::absent: break;
  }
  settle(i);
}

void upstream::asker::settle(const item& i) {
  auto& q = *i.asked_by;
  if (--q.open > 0) return;
  if (!q.result.unknown.empty())
    q.result.troubles = shared_->with_memory([](auto& memory, auto) { return memory.troubles(); });
  {
    std::lock_guard lock{mutex_};
    --questions_;
  }
  q.done(std::move(q.result), q.again);
}

std::size_t upstream::asker::transfer::on_body(char* bytes, std::size_t, std::size_t size, void* self) {
  auto& t = *static_cast<transfer*>(self);
  t.too_large = t.body.size() + size > t.bytes_max;
  if (t.too_large) return 0;
  t.body.append(bytes, size);
  return size;
}

void upstream::asker::start(std::size_t cache, std::optional<item> what, const std::string& file) {
  auto& o = shared_->options;
  auto t = std::make_unique<transfer>();
  t->easy = make_get(o.urls[cache] + "/" + file, {.silence_max = o.silence_max});
  t->cache = cache;
  t->bytes_max = what ? o.narinfo_bytes_max : cache_info_bytes_max;
  t->what = std::move(what);
  const auto easy = t->easy.get();
  set_curl(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
  set_curl(easy, CURLOPT_TIMEOUT_MS, static_cast<long>(o.silence_max.count()) * whole_answer_factor);
  set_curl(easy, CURLOPT_PIPEWAIT, 1L);
  set_curl(easy, CURLOPT_ERRORBUFFER, t->words);
  set_curl(easy, CURLOPT_WRITEFUNCTION, &transfer::on_body);
  set_curl(easy, CURLOPT_WRITEDATA, static_cast<void*>(t.get()));
  if (curl_multi_add_handle(multi_.get(), easy) != CURLM_OK) throw std::bad_alloc();
  running_.emplace(easy, std::move(t));
}

void upstream::asker::reap() {
  int left = 0;
  while (auto* message = curl_multi_info_read(multi_.get(), &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const auto done = message->data.result;
    auto node = running_.extract(message->easy_handle);
    curl_multi_remove_handle(multi_.get(), message->easy_handle);
    ended(*node.mapped(), done);
  }
}

void upstream::asker::ended(transfer& t, CURLcode done) {
  if (!t.what) introducing_.erase(t.cache);
  const auto url = shared_->options.urls[t.cache];
  const auto status = status_of(t.easy.get(), done);
  std::string trouble;
  if (t.too_large && t.what)
    shared_->distrust(t.cache, t.what->path, "its narinfo does not end");
  else if (t.too_large)
    trouble = "its nix-cache-info does not end";
  else if (done == CURLE_FILE_COULDNT_READ_FILE ? !is_mounted(url) : done != CURLE_OK)
    trouble = why_not(done, t.words);
  else if (status != 200 && status != 404 && status != 403 && status != 410)
    trouble = "HTTP status " + std::to_string(status);
  else
    trouble = heard(t, status);
  if (!trouble.empty()) {
    rt::log::info("UPSTREAM", "cache did not answer url={} error={}", url, trouble);
    shared_->with_memory([&](auto& memory, auto now) { memory.on_silence(t.cache, trouble, now); });
    if (t.what) {
      t.what->silent.insert(t.cache);
      t.what->asked_by->again = true;
    } else {
      for (auto& i : waiting_) {
        i.silent.insert(t.cache);
        i.asked_by->again = true;
      }
    }
  } else if (t.what) {
    shared_->with_memory([&](auto& memory, auto) { memory.on_answer(t.cache); });
  }
  if (t.what) waiting_.push_front(std::move(*t.what));
}

/// It answered; the trouble, if that was no answer after all.
std::string upstream::asker::heard(transfer& t, long status) {
  auto& o = shared_->options;
  if (!t.what) {
    auto info = status == 200 ? parse_cache_info(t.body) : expected<cache_info>{cache_info{}};
    if (!info) return info.error().what;
    auto refusal = shared_->with_memory([&](auto& memory, auto) {
      memory.on_answer(t.cache);
      memory.on_info(t.cache, *info, o.trust.store_dir);
      return memory.refusal(t.cache);
    });
    if (!refusal.empty()) rt::log::warn("UPSTREAM", "cache is not used: {}", refusal);
    return {};
  }
  if (status != 200) {
    shared_->with_memory([&](auto& memory, auto now) { memory.on_absent(t.cache, t.what->path, now); });
    return {};
  }
  auto read = read_upstream_narinfo(t.body, t.what->path, o.trust);
  if (read)
    shared_->with_memory([&](auto& memory, auto now) { memory.on_found(t.cache, std::move(*read), now); });
  else
    shared_->distrust(t.cache, t.what->path, read.error().what);
  return {};
}

/// The end: what is not known stays so.
void upstream::asker::give_up() {
  {
    std::lock_guard lock{mutex_};
    closed_ = true;
  }
  take_inbox();
  for (auto& [easy, t] : running_) {
    curl_multi_remove_handle(multi_.get(), easy);
    if (t->what) waiting_.push_back(std::move(*t->what));
  }
  for (auto& i : std::exchange(waiting_, {})) {
    i.asked_by->result.unknown.push_back(i.path);
    settle(i);
  }
}

} // namespace coppice::store
