#pragma once

#include "runtime/process.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <thread>

namespace coppice::rt {

/// Runs processes on one thread: it alone starts and reaps them, reads their output and watches their limits. A
/// process's end is its exit, not the end of its output: what a daemon it left behind still writes is lost. When our
/// process dies, however, the kernel kills every process that was started here (INV-11).
class process_loop final : public process_port {
public:
  /// At most this many processes run; a start beyond is not_started.
  static constexpr std::size_t processes_max = 4096;

  /// Throws std::system_error if the thread or its descriptors cannot be made.
  process_loop();
  /// Kills all that runs, tells every observer, and ends the thread.
  ~process_loop() override;
  process_loop(const process_loop&) = delete;
  process_loop& operator=(const process_loop&) = delete;

  void start(process_id id, process_spec spec, process_observer observer) override;
  void ack(process_id id, std::size_t bytes) override;
  void extend(process_id id, boot_clock::time_point deadline) override;
  void cancel(process_id id, std::chrono::milliseconds grace) override;

private:
  struct child;
  struct commands;
  class engine;
  void wake();

  unique_fd wake_;
  std::mutex mutex_;
  std::unique_ptr<commands> waiting_; // guarded by mutex_
  std::thread thread_;
};

} // namespace coppice::rt
