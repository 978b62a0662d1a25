#include "store/percent.hpp"
#include "store/s3/bucket.hpp"
#include "store/s3/sigv4.hpp"
#include "store/s3/texts.hpp"
#include "store/s3/upload_journal.hpp"
#include "tests/unit/store/tree_support.hpp"

#include <map>

using namespace coppice;
using namespace coppice::store;
using namespace coppice::store::test;
using namespace std::chrono_literals;

namespace {

/// Of the examples in AWS's documents.
const s3::credentials example{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ""};
constexpr s3::wall_time may_24{1'369'353'600s};
const std::string empty = s3::payload_hash("");

s3::request example_request(std::string method, std::string path) {
  s3::request r{std::move(method), "examplebucket.s3.amazonaws.com", std::move(path)};
  r.payload_hash = empty;
  r.headers = {{"x-amz-date", "20130524T000000Z"}, {"x-amz-content-sha256", empty}};
  return r;
}

std::string signature_of(const s3::request& r) {
  return s3::signature(r, example.secret_key, "20130524T000000Z", {"us-east-1"});
}

using variables = std::map<std::string, std::string>;
s3::environment env(variables set) {
  return [set = std::move(set)](const char* name) {
    const auto found = set.find(name);
    return found == set.end() ? nullptr : found->second.c_str();
  };
}

} // namespace

TEST_CASE("a time is written as signatures have it") {
  CHECK(s3::amz_date(may_24) == "20130524T000000Z");
  CHECK(s3::amz_date(s3::wall_time{1'440'938'160s}) == "20150830T123600Z");
}

TEST_CASE("requests of the S3 documentation have its signatures") {
  auto get = example_request("GET", "/test.txt");
  get.headers.emplace_back("range", "bytes=0-9");
  CHECK(signature_of(get) == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

  auto put = example_request("PUT", "/" + percent_encoded("test$file.text"));
  put.payload_hash = s3::payload_hash("Welcome to Amazon S3.");
  put.headers = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                 {"x-amz-date", "20130524T000000Z"},
                 {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                 {"x-amz-content-sha256", put.payload_hash}};
  CHECK(signature_of(put) == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

  auto lifecycle = example_request("GET", "/");
  lifecycle.query = {{"lifecycle", ""}};
  CHECK(signature_of(lifecycle) == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");

  auto list = example_request("GET", "/");
  list.query = {{"prefix", "J"}, {"max-keys", "2"}}; // signed in order
  CHECK(signature_of(list) == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST_CASE("requests of the published test suite have its signatures") {
  s3::request vanilla{"GET", "example.amazonaws.com", "/"};
  vanilla.headers = {{"x-amz-date", "20150830T123600Z"}};
  vanilla.payload_hash = empty;
  const auto of = [](const s3::request& r) {
    return s3::signature(r, "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830T123600Z", {"us-east-1", "service"});
  };
  CHECK(of(vanilla) == "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
  vanilla.query = {{"Param2", "value2"}, {"Param1", "value1"}};
  CHECK(of(vanilla) == "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
}

TEST_CASE("a signed request says by whose key, for what and when") {
  const auto lines = s3::sign({"GET", "h", "/b/k", {}, {}, empty}, {"AK", "SK", "token"}, may_24, {"eu"});
  REQUIRE(lines.size() == 4);
  CHECK(lines[0] == "x-amz-date: 20130524T000000Z");
  CHECK(lines[1] == "x-amz-content-sha256: " + empty);
  CHECK(lines[2] == "x-amz-security-token: token");
  CHECK(lines[3].starts_with("Authorization: AWS4-HMAC-SHA256 Credential=AK/20130524/eu/s3/aws4_request,"
                             "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,Signature="));
}

TEST_CASE("a presigned URL is that of the S3 documentation") {
  const auto query =
      s3::presign({"GET", "examplebucket.s3.amazonaws.com", "/test.txt"}, example, may_24, {"us-east-1"}, 86'400s);
  CHECK(query ==
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F"
        "aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
  const auto longest = s3::presign({"GET", "h", "/k"}, example, may_24, {"us-east-1"}, 1'000'000s);
  CHECK(longest.find("X-Amz-Expires=604800&") != longest.npos);
}

TEST_CASE("text is percent-encoded for URLs, and decoded") {
  CHECK(percent_encoded("a/b c+?%.drv", "/") == "a/b%20c%2B%3F%25.drv");
  CHECK(percent_encoded("a/b~é") == "a%2Fb~%C3%A9");
  CHECK(percent_decoded("a%2fb%2Bc+d%C3%A9") == "a/b+c+dé");
  CHECK(percent_decoded("%41") == "A");
  for (const auto* bad : {"%", "%4", "%4g", "a%zz"})
    CHECK(percent_decoded(bad) == std::nullopt);
}

TEST_CASE("credentials come from the environment, or from a profile of a private file") {
  const scratch_dir dir;
  const auto file = dir / "credentials";
  write(file,
        "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=S=/+\n\n[ other ]\naws_access_key_id=B\r\n"
        "aws_secret_access_key = T\naws_session_token = X\n",
        0600);
  const auto of = [&](const s3::credentials_place& place, const variables& set) {
    return s3::find_credentials(place, env(set));
  };
  CHECK(good(of({}, {{"AWS_ACCESS_KEY_ID", "E"}, {"AWS_SECRET_ACCESS_KEY", "F"}, {"HOME", "/"}})) ==
        s3::credentials{"E", "F", ""});
  CHECK(good(of({file, "default"}, {{"AWS_ACCESS_KEY_ID", "E"}})) == s3::credentials{"A", "S=/+", ""});
  CHECK(good(of({file, "other"}, {})) == s3::credentials{"B", "T", "X"});
  CHECK(good(of({{}, "other"}, {{"AWS_SHARED_CREDENTIALS_FILE", file.string()}})).access_key == "B");
  fs::create_directory(dir / ".aws");
  fs::copy_file(file, dir / ".aws" / "credentials");
  CHECK(good(of({}, {{"HOME", fs::path{dir}.string()}})).access_key == "A");
}

TEST_CASE("missing credentials are told with where they were looked for, and without secrets") {
  const scratch_dir dir;
  const auto file = dir / "credentials";
  const auto text_of = [](const expected<s3::credentials>& found) {
    REQUIRE_FALSE(found);
    CHECK(found.error().what.find("hidden") == std::string::npos);
    return found.error().what;
  };
  using Catch::Matchers::Contains;
  CHECK_THAT(text_of(s3::find_credentials({}, env({}))), Contains("AWS_ACCESS_KEY_ID"));
  CHECK_THAT(text_of(s3::find_credentials({}, env({{"HOME", "/nowhere"}}))), Contains("/nowhere/.aws/credentials"));
  CHECK_THAT(text_of(s3::find_credentials({}, env({{"AWS_SECRET_ACCESS_KEY", "hidden"}}))),
             Contains("only one is set"));
  CHECK_THAT(text_of(s3::find_credentials({file, "default"}, env({}))), Contains(file.string()));
  write(file, "[default]\naws_access_key_id = A\n[other]\naws_secret_access_key = hidden\n", 0600);
  CHECK_THAT(text_of(s3::find_credentials({file, "default"}, env({}))), Contains("no aws_secret_access_key"));
  CHECK_THAT(text_of(s3::find_credentials({file, "other"}, env({}))), Contains("no aws_access_key_id"));
  CHECK_THAT(text_of(s3::find_credentials({file, "third"}, env({}))), Contains("no profile [third]"));
  write(file, "[default]\naws_access_key_id = A\naws_secret_access_key = hidden\n", 0644);
  CHECK_THAT(text_of(s3::find_credentials({file, "default"}, env({}))), Contains("others may read"));
}

TEST_CASE("credentials are looked for again when they were refused, and only then") {
  int looked = 0;
  s3::credentials_box box{[&]() -> expected<s3::credentials> {
    return s3::credentials{std::to_string(++looked), "s", ""};
  }};
  const auto first = good(box.get());
  CHECK(good(box.get()) == first);
  CHECK(looked == 1);
  const auto second = good(box.get(first));
  CHECK(second.access_key == "2");
  CHECK(good(box.get(first)) == second); // somebody else had them exchanged
  CHECK(looked == 2);
}

TEST_CASE("what an S3 server refuses and lists is read") {
  const auto refused =
      s3::parse_refusal("<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>a &amp; b</Message></Error>");
  REQUIRE(refused);
  CHECK(refused->code == "NoSuchKey");
  CHECK(refused->message == "a & b");
  CHECK_FALSE(s3::parse_refusal("<html>"));
  CHECK_FALSE(s3::parse_refusal(""));

  const auto page = good(s3::parse_objects(
      "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>true</IsTruncated>"
      "<Contents><Key>log/a%2Bb</Key><Size>12</Size></Contents><Contents><Key>x</Key><Size>0</Size></Contents>"
      "<NextContinuationToken>t=</NextContinuationToken></ListBucketResult>"));
  CHECK(page.objects == std::vector<std::pair<std::string, std::uint64_t>>{{"log/a+b", 12}, {"x", 0}});
  CHECK(page.next == "t=");
  CHECK(good(s3::parse_objects("<ListBucketResult/>")).objects.empty());

  const auto uploads = good(s3::parse_uploads(
      "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated><Upload><Key>nar/a</Key><UploadId>2~x</UploadId>"
      "<Initiated>2013-05-24T00:00:00.000Z</Initiated></Upload></ListMultipartUploadsResult>"));
  CHECK(uploads.uploads == std::vector<s3::open_upload>{{"nar/a", "2~x", "2013-05-24T00:00:00.000Z"}});
  CHECK(good(s3::parse_initiated(
            "<InitiateMultipartUploadResult><UploadId>i</UploadId></InitiateMultipartUploadResult>")) == "i");
  CHECK(s3::is_completed("<CompleteMultipartUploadResult/>"));
  CHECK_FALSE(s3::is_completed("<Error><Code>InternalError</Code></Error>")); // in a 200
  CHECK(s3::print_completion({"\"a\"", "b<"}) ==
        "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Part><PartNumber>1</PartNumber>"
        "<ETag>\"a\"</ETag></Part><Part><PartNumber>2</PartNumber><ETag>b&lt;</ETag></Part></CompleteMultipartUpload>");
}

TEST_CASE("what is no listing of an S3 server is a bad message") {
  for (const auto* text : {"", "<", "<html/>", "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
                           "<ListBucketResult><Contents><Key>a%</Key><Size>1</Size></Contents></ListBucketResult>",
                           "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>"})
    CHECK(code_of(s3::parse_objects(text)) == ec::bad_message);
  for (const auto* text :
       {"", "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated></ListMultipartUploadsResult>",
        "<ListMultipartUploadsResult><Upload><Key>a</Key></Upload></ListMultipartUploadsResult>"})
    CHECK(code_of(s3::parse_uploads(text)) == ec::bad_message);
  CHECK(code_of(s3::parse_initiated("<InitiateMultipartUploadResult/>")) == ec::bad_message);
}

TEST_CASE("a bucket's place is checked before anything is asked") {
  good(s3::check_place({"https://s3.example:8443", "farm-1.cache"}));
  for (const auto* endpoint :
       {"", "s3.example", "ftp://s3.example", "http://", "http://s3.example/path", "http://u@s3.example"})
    CHECK(code_of(s3::check_place({endpoint, "farm"})) == ec::invalid);
  for (const auto* name : {"", "ab", "Farm", "a/b", "-farm", "a b c"})
    CHECK(code_of(s3::check_place({"http://s3.example", name})) == ec::invalid);
  CHECK(code_of(s3::check_place({"http://s3.example", "farm", ""})) == ec::invalid);
}

TEST_CASE("uploads that a process left behind are told to the next one, and to itself what it gave up") {
  const scratch_dir dir;
  const s3::open_upload a{"nar/a", "id-a", ""}, b{"nar/b", "id-b", ""}, c{"nar/c", "id-c", ""};
  {
    auto journal = good(s3::upload_journal::open(dir / "uploads"));
    for (const auto& upload : {a, b, c})
      good(journal->begin(upload));
    CHECK(good(journal->abandoned()).empty());
    good(journal->end(a));
    journal->give_up(b);
    CHECK(good(journal->abandoned()) == std::vector{b});
  }
  auto journal = good(s3::upload_journal::open(dir / "uploads"));
  CHECK(good(journal->abandoned()).size() == 2);
  good(journal->end(b));
  CHECK(good(journal->abandoned()) == std::vector{c});
}
