#include "runtime/pool.hpp"

#include <algorithm>

namespace coppice::rt {

pool::pool(unsigned threads, std::size_t queue_max) : queue_max_(queue_max) {
  threads = std::max(threads, 1u);
  threads_.reserve(threads);
  for (unsigned i = 0; i < threads; ++i)
    threads_.emplace_back([this] { run(); });
}

pool::~pool() {
  close();
}

bool pool::post(std::function<void()> job) {
  {
    std::lock_guard lock{mutex_};
    if (closed_ || jobs_.size() >= queue_max_) return false;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return true;
}

void pool::close() {
  std::deque<std::function<void()>> dropped; // destroyed outside the lock: a job may own handles
  {
    std::lock_guard lock{mutex_};
    closed_ = true;
    dropped.swap(jobs_);
  }
  wake_.notify_all();
  for (auto& t : threads_)
    if (t.joinable()) t.join();
}

std::size_t pool::queued() const {
  std::lock_guard lock{mutex_};
  return jobs_.size();
}

std::size_t pool::failed() const {
  std::lock_guard lock{mutex_};
  return failed_;
}

void pool::run() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock{mutex_};
      wake_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
      if (closed_) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    try {
      job();
    } catch (...) { // ignored: counted, and the thread must live on
      std::lock_guard lock{mutex_};
      ++failed_;
    }
  }
}

} // namespace coppice::rt
