#pragma once

#include "runtime/clock.hpp"
#include "store/upstream/texts.hpp"

#include <list>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace coppice::store {

/// What upstream caches said of themselves and of paths, and which one is to be asked next. Decides, and asks nobody.
/// An error is never a "no": a cache that does not answer is silent, and after a few times away for a while.
class upstream_memory {
public:
  using time_point = rt::boot_clock::time_point;
  struct limits {
    std::size_t words_max = 131'072;                 ///< answers remembered; the oldest are forgotten first
    std::chrono::milliseconds found_ttl{3'600'000};  ///< a cache has a path
    std::chrono::milliseconds absent_ttl{60'000};    ///< a cache has it not
    std::chrono::milliseconds unusable_ttl{600'000}; ///< what a cache says of it, or gives for it, is wrong
    unsigned silences_max = 4;                       ///< one after the other, then it is away
    std::chrono::milliseconds away_first{30'000}, away_max{300'000}; ///< nobody asks it for so long; doubling
  };
  struct verdict {
    enum class kind : std::uint8_t { found, ask, absent, unknown } is = kind::absent;
    std::size_t cache = 0; ///< that has it, or is to be asked
    upstream_path what;    ///< if found
  };

  upstream_memory(std::vector<std::string> urls, limits l);

  /// What is known of the path; caches in order of priority, those in `silent` did not answer this question.
  verdict look(const nix::store_path& path, const std::set<std::size_t>& silent, time_point now) const;
  /// Caches that never said what they are, and may be asked now.
  std::vector<std::size_t> strangers(time_point now) const;

  void on_info(std::size_t cache, const cache_info& info, std::string_view store_dir);
  void on_found(std::size_t cache, upstream_path what, time_point now);
  void on_absent(std::size_t cache, const nix::store_path& path, time_point now);
  /// Not from this cache: what it says or gives is wrong.
  void on_unusable(std::size_t cache, const nix::store_path& path, time_point now);
  /// It answered, whatever it said.
  void on_answer(std::size_t cache);
  void on_silence(std::size_t cache, std::string why, time_point now);

  bool is_away(std::size_t cache, time_point now) const { return now < caches_[cache].away_until; }
  /// Why it is not used, if it is for another store directory; else empty.
  const std::string& refusal(std::size_t cache) const { return caches_[cache].refusal; }
  /// "URL does not answer: why" of each cache that was silent last.
  std::vector<std::string> troubles() const;

private:
  struct cache_row {
    std::string url;
    int priority = 0;
    bool known = false;
    std::string refusal;
    unsigned silences = 0; ///< since it last answered
    std::chrono::milliseconds away_for{0};
    time_point away_until{};
    std::string trouble;
  };
  using key = std::pair<std::size_t, nix::store_path>;
  struct word {
    verdict::kind is;
    upstream_path what;
    time_point until;
    std::list<key>::iterator place;
  };
  void remember(key k, verdict::kind is, upstream_path what, time_point until);

  limits limits_;
  std::vector<cache_row> caches_;
  std::vector<std::size_t> order_; ///< by priority
  std::map<key, word> words_;      ///< `unknown` stands for unusable
  std::list<key> ages_;            ///< oldest first
};

} // namespace coppice::store
