#pragma once

#include "tests/sim/farm.hpp"

#include <optional>
#include <string>

namespace coppice::sim {

/// A client of a farm that wants one request served: uploads, submits, polls, and says everything again until it is
/// answered (R2). Its words to the hub, and the answers, may be lost as all others.
class client {
public:
  client(farm& f, const workload::request& wanted, std::string name, std::uint64_t seed);
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  void begin(nanoseconds after);
  /// From then on it wants the request cancelled.
  void cancel(nanoseconds after);
  /// Asks once more what became of it, as if it had forgotten.
  void forget();
  bool over() const { return result_.has_value(); }
  bool wanted_cancelled() const { return cancelled_; }
  const std::optional<request_result>& result() const { return result_; }
  const workload::request& request() const { return wanted_; }
  const std::string& name() const { return name_; }

private:
  enum class stage { locate, enter, submit, poll, cancel };
  /// A question that is open, and what to do with its answer.
  using look = std::function<bool()>;

  void step();
  void ask();
  template <class Handle, class Then, class... Ts>
  void ask(const Handle& to, Then then, Ts... xs);
  void on_located(const expected<ledger::answer>& a);
  void on_entered(const expected<ledger::answer>& a);
  void on_submitted(const expected<accepted>& a);
  void on_polled(const expected<request_progress>& p);
  void on_cancelled(const expected<accepted>& a);

  farm& farm_;
  const workload::request& wanted_;
  const std::string name_;
  dice dice_;
  stage stage_ = stage::locate;
  generation gen_;
  look open_;
  std::uint64_t hub_life_ = 0;
  nanoseconds asked_{0};
  bool cancels_ = false;   ///< it wants to
  bool cancelled_ = false; ///< it has ever wanted to
  std::optional<request_result> result_;
};

} // namespace coppice::sim
