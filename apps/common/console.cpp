#include "apps/common/console.hpp"

#include "apps/common/cli.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <thread>

namespace coppice::app {
namespace {

screen_size size_of(int fd, screen_size otherwise) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return otherwise;
  return {size.ws_col, size.ws_row};
}

void write_all(std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return; // ignored: nobody is left to tell it to
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value;
}

} // namespace

console::console(bool quiet) {
  const char* terminal = std::getenv("TERM");
  const bool able = ::isatty(STDERR_FILENO) && terminal && std::string_view(terminal) != "dumb";
  options_ = {able && !quiet, able && !is_set("NO_COLOR"), quiet};
}

console::~console() {
  draw({});
}

void console::put(const std::vector<std::string>& above) {
  if (options_.live) return write_all(live_.draw(above, block_, size()));
  std::string text;
  for (const auto& line : above)
    text += line + "\n";
  write_all(text);
}

void console::say(const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  const std::lock_guard lock(mutex_);
  put(lines);
}

void console::note(const std::string& line) {
  if (!options_.quiet) say({line});
}

void console::draw(const std::vector<std::string>& block) {
  if (!options_.live) return;
  const std::lock_guard lock(mutex_);
  block_ = block;
  put({});
}

screen_size console::size() const {
  return size_of(STDERR_FILENO, {});
}

screen_size output_size() {
  return size_of(STDOUT_FILENO, {0, 0});
}

int attend(rt::signals& signals, const std::function<int()>& work, const attention& what) {
  std::atomic<bool> over{false};
  int result = exit_failed;
  std::exception_ptr thrown;
  std::thread thread([&] {
    try {
      result = work();
    } catch (...) {
      thrown = std::current_exception();
    }
    over = true;
    rt::signals::wake();
  });
  bool told = false;
  while (!over) {
    const auto signal = signals.wait_for(std::chrono::milliseconds{100});
    if (signal && *signal != SIGUSR1) {
      if (told) {
        write_all("\n");
        std::_Exit(exit_cancelled);
      }
      told = true;
      if (what.interrupted) what.interrupted();
    }
    if (!over && what.redraw) what.redraw();
  }
  thread.join();
  if (thrown) std::rethrow_exception(thrown);
  return result;
}

} // namespace coppice::app
