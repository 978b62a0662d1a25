#include "tests/unit/actors/http_blobs_fixture.hpp"
#include "tests/unit/store/blob_store_conformance.hpp"

namespace coppice::store::test {

std::unique_ptr<blobs_under_test> make_blobs(const fs::path& dir) {
  class over_http final : public blobs_under_test {
  public:
    explicit over_http(const fs::path& at) : files_(good(directory_blob_store::open_dir(at))) {}
    blob_store& blobs() override { return *me_.blobs; }
    void spoil(const std::string& key, const std::string& bytes) override { write(files_->dir() / key, bytes); }

  private:
    std::unique_ptr<directory_blob_store> files_;
    coppice::test::cache_site site_{[this](auto& c) { c.blobs = files_.get(); }};
    coppice::test::member me_{site_};
  };
  return std::make_unique<over_http>(dir);
}

} // namespace coppice::store::test
