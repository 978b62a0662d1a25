#include "store/s3/texts.hpp"

#include "store/percent.hpp"

#include <pugixml.hpp>

#include <charconv>

namespace coppice::store::s3 {

namespace {

/// The element that the whole text is, if it has that name.
pugi::xml_node root_of(pugi::xml_document& document, std::string_view xml, const char* name) {
  if (!document.load_buffer(xml.data(), xml.size())) return {};
  return document.child(name);
}

tl::unexpected<error> no_such(const char* name) {
  return fail(ec::bad_message, std::string{"the S3 server sends no "} + name);
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, e] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (e != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_true(const pugi::xml_node& node, const char* child) {
  return std::string_view{node.child_value(child)} == "true";
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
    case '&': out += "&amp;"; break;
    case '<': out += "&lt;"; break;
    case '>': out += "&gt;"; break;
    default: out += c;
    }
  }
  return out;
}

} // namespace

std::optional<refusal> parse_refusal(std::string_view xml) {
  pugi::xml_document document;
  const auto e = root_of(document, xml, "Error");
  if (!e) return std::nullopt;
  return refusal{e.child_value("Code"), e.child_value("Message")};
}

expected<object_page> parse_objects(std::string_view xml) {
  constexpr const char* name = "ListBucketResult";
  pugi::xml_document document;
  const auto result = root_of(document, xml, name);
  if (!result) return no_such(name);
  object_page page;
  for (const auto& object : result.children("Contents")) {
    const auto key = percent_decoded(object.child_value("Key"));
    const auto bytes = number(object.child_value("Size"));
    if (!key || !bytes) return no_such(name);
    page.objects.emplace_back(*key, *bytes);
  }
  if (!is_true(result, "IsTruncated")) return page;
  page.next = result.child_value("NextContinuationToken");
  if (page.next.empty()) return no_such(name);
  return page;
}

expected<upload_page> parse_uploads(std::string_view xml) {
  constexpr const char* name = "ListMultipartUploadsResult";
  pugi::xml_document document;
  const auto result = root_of(document, xml, name);
  if (!result) return no_such(name);
  upload_page page;
  for (const auto& upload : result.children("Upload")) {
    const auto key = percent_decoded(upload.child_value("Key"));
    open_upload one{key.value_or(""), upload.child_value("UploadId"), upload.child_value("Initiated")};
    if (one.key.empty() || one.id.empty()) return no_such(name);
    page.uploads.push_back(std::move(one));
  }
  page.more = is_true(result, "IsTruncated");
  page.key_marker = percent_decoded(result.child_value("NextKeyMarker")).value_or("");
  page.id_marker = result.child_value("NextUploadIdMarker");
  if (page.more && page.key_marker.empty()) return no_such(name);
  return page;
}

expected<std::string> parse_initiated(std::string_view xml) {
  constexpr const char* name = "InitiateMultipartUploadResult";
  pugi::xml_document document;
  const std::string id = root_of(document, xml, name).child_value("UploadId");
  if (id.empty()) return no_such(name);
  return id;
}

std::string print_completion(const std::vector<std::string>& etags) {
  std::string text = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
  for (std::size_t i = 0; i < etags.size(); ++i)
    text += "<Part><PartNumber>" + std::to_string(i + 1) + "</PartNumber><ETag>" + escaped(etags[i]) + "</ETag></Part>";
  return text + "</CompleteMultipartUpload>";
}

bool is_completed(std::string_view xml) {
  pugi::xml_document document;
  return static_cast<bool>(root_of(document, xml, "CompleteMultipartUploadResult"));
}

} // namespace coppice::store::s3
