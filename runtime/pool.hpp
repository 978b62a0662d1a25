#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

/// Threads for work that blocks (hashing, file system): actors never block, jobs talk back by messages only.
namespace coppice::rt {

/// Where jobs go; tests put them into their own order.
class executor {
public:
  virtual ~executor() = default;
  /// Takes the job for later, or gives false and drops it when the queue is full or closed. Never blocks. A job that
  /// throws is counted and otherwise ignored: use post_and_send, which reports it.
  virtual bool post(std::function<void()> job) = 0;
};

/// Runs each job at once on the caller's thread.
class inline_executor final : public executor {
public:
  bool post(std::function<void()> job) override {
    job();
    return true;
  }
};

/// A fixed number of threads behind one bounded queue.
class pool final : public executor {
public:
  /// Starts `threads` (at least 1); at most `queue_max` jobs wait.
  pool(unsigned threads, std::size_t queue_max);
  /// As close().
  ~pool() override;
  bool post(std::function<void()> job) override;
  /// Drops the jobs that wait and waits for those that run; no job runs afterwards. May be called twice.
  void close();
  /// Jobs waiting now.
  std::size_t queued() const;
  /// Jobs that threw.
  std::size_t failed() const;

private:
  void run();
  const std::size_t queue_max_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool closed_ = false;
  std::size_t failed_ = 0;
  std::vector<std::thread> threads_;
};

/// Runs `work()` on `where`, then `done(its result)` there, or `failed(text)` if it threw; both must do no more than
/// send messages to handles they hold. False when the queue is full: neither will be called.
template <class Work, class Done, class Failed>
bool post_and_send(executor& where, Work work, Done done, Failed failed) {
  auto job = [work = std::move(work), done = std::move(done), failed = std::move(failed)]() mutable {
    try {
      done(work());
    } catch (const std::exception& e) {
      failed(std::string{e.what()});
    } catch (...) {
      failed(std::string{"unknown exception"});
    }
  };
  // shared, because std::function wants copies and work may own things that have none
  return where.post([shared = std::make_shared<decltype(job)>(std::move(job))] { (*shared)(); });
}

} // namespace coppice::rt
