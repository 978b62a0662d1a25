#include "store/s3/upload_journal.hpp"

#include "nix/hash.hpp"
#include "store/files.hpp"

namespace coppice::store::s3 {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t entry_bytes_max = 64 * 1024;

} // namespace

expected<std::unique_ptr<upload_journal>> upload_journal::open(const fs::path& dir) {
  if (auto made = make_directories(dir); !made) return tl::unexpected(made.error());
  if (auto swept = sweep_temporary_files(dir); !swept) return tl::unexpected(swept.error());
  return std::unique_ptr<upload_journal>{new upload_journal{dir}};
}

fs::path upload_journal::file_of(const open_upload& upload) const {
  return dir_ / nix::hash_of(nix::hash_algo::sha256, upload.key + "\n" + upload.id).base32();
}

expected<void> upload_journal::begin(const open_upload& upload) {
  const auto file = file_of(upload);
  std::lock_guard lock{mutex_};
  under_way_.insert(file);
  return replace_file(file, upload.key + "\n" + upload.id + "\n");
}

void upload_journal::give_up(const open_upload& upload) {
  std::lock_guard lock{mutex_};
  under_way_.erase(file_of(upload));
}

expected<void> upload_journal::end(const open_upload& upload) {
  const auto file = file_of(upload);
  std::lock_guard lock{mutex_};
  under_way_.erase(file);
  return remove_file(file);
}

expected<std::vector<open_upload>> upload_journal::abandoned() const {
  std::vector<open_upload> found;
  std::lock_guard lock{mutex_};
  std::error_code e;
  for (fs::directory_iterator it{dir_, e}, last; !e && it != last; it.increment(e)) {
    if (under_way_.contains(it->path()) || it->path().filename().string().front() == '.') continue;
    const auto text = read_file(it->path(), entry_bytes_max);
    if (!text) return tl::unexpected(text.error());
    const auto first = text->find('\n'), second = text->find('\n', first + 1);
    if (first == text->npos || second == text->npos) continue; // no entry of ours
    found.push_back({text->substr(0, first), text->substr(first + 1, second - first - 1), ""});
  }
  if (e) return tl::unexpected(system_error(e.value(), "cannot read " + dir_.string()));
  return found;
}

} // namespace coppice::store::s3
