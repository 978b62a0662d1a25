#include "store/ledger_rules.hpp"
#include "store/memory_rows.hpp"

namespace coppice::store {

namespace {

class memory_ledger final : public ledger_backend {
public:
  explicit memory_ledger(ledger_policy policy) : policy_(policy) {}

  std::vector<expected<ledger::any_answer>> run(std::span<const ledger::any_transaction> batch,
                                                std::int64_t wall_now_ms, ledger::changed& changed) override {
    ledger_changes changes;
    ledger_rules rules{*rows_, policy_, wall_now_ms, changes};
    std::vector<expected<ledger::any_answer>> answers;
    answers.reserve(batch.size());
    for (auto& t : batch)
      answers.push_back(rules.apply(t));
    changes.append_to(changed);
    return answers;
  }
  std::vector<session_id> sessions() override { return rows_->live_sessions(); }
  std::string lineage() const override { return "memory"; }

private:
  ledger_policy policy_;
  std::unique_ptr<ledger_rows> rows_ = make_memory_rows();
};

} // namespace

std::unique_ptr<ledger_rows> make_memory_rows() { return std::make_unique<memory_rows>(); }

std::unique_ptr<ledger_backend> open_memory_ledger(ledger_policy policy) {
  return std::make_unique<memory_ledger>(policy);
}

} // namespace coppice::store
