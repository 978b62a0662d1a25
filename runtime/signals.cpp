#include "runtime/signals.hpp"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

namespace coppice::rt {

namespace {
sigset_t ours() {
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGTERM, SIGINT, SIGHUP, SIGUSR1})
    sigaddset(&set, s);
  return set;
}
} // namespace

signals::signals() {
  const auto set = ours();
  if (int e = pthread_sigmask(SIG_BLOCK, &set, nullptr); e != 0)
    throw std::system_error(e, std::generic_category(), "cannot block signals");
  if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR)
    throw std::system_error(errno, std::generic_category(), "cannot ignore SIGPIPE");
}

int signals::wait() {
  const auto set = ours();
  int got = 0;
  if (int e = sigwait(&set, &got); e != 0)
    throw std::system_error(e, std::generic_category(), "cannot wait for signals");
  return got;
}

std::optional<int> signals::wait_for(std::chrono::milliseconds d) {
  const auto set = ours();
  const auto end = std::chrono::steady_clock::now() + d;
  for (;;) {
    const auto left =
        std::max(std::chrono::nanoseconds{0}, std::chrono::nanoseconds{end - std::chrono::steady_clock::now()});
    timespec t{};
    t.tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
    t.tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
    const int got = sigtimedwait(&set, nullptr, &t);
    if (got > 0) return got;
    if (errno == EAGAIN) return std::nullopt;
    if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "cannot wait for signals");
  }
}

void signals::wake() {
  ::kill(::getpid(), SIGUSR1);
}

} // namespace coppice::rt
