#include "messages/ledger.hpp"

namespace coppice::ledger {

std::string_view to_string(phase p) {
  switch (p) {
    case phase::free: return "free";
    case phase::queued: return "queued";
    case phase::building: return "building";
    case phase::partial: return "partial";
    case phase::realised: return "realised";
  }
  return "?";
}

} // namespace coppice::ledger
