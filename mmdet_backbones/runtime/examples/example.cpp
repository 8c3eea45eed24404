// Boxes of an image by the C++ API of OpenVINO, which reads model.xml and model.onnx:
//   g++ -std=c++17 example.cpp -o example -I OPENVINO/include -L OPENVINO/lib -lopenvino
//   ./example FOLDER IMAGE.ppm SCORE      (a binary PPM: `magick photo.jpg IMAGE.ppm`)
// Images are resized bilinearly, which is right where detector.json says "bilinear".
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <regex>

int main(int count, char** arguments) {
  if (count != 4) return std::puts("./example FOLDER IMAGE.ppm SCORE"), 2;
  const std::string folder = arguments[1];
  std::ifstream file(folder + "/detector.json");
  const std::string told{std::istreambuf_iterator<char>(file), {}};
  auto number = [&](std::string section, std::string key) {  // 0 for null and false
    std::smatch found;
    std::regex wanted('"' + section + R"("\s*:\s*\{[^}]*")" + key + R"("\s*:\s*(\d+|true))");
    if (!std::regex_search(told, found, wanted)) return 0;
    return found[1] == "true" ? 1 : std::stoi(found[1]);
  };
  int old_w, old_h, scale[] = {number("resize", "height"), number("resize", "width")};
  int fixed[] = {number("input", "height"), number("input", "width")}, size[2], padded[2];
  std::ifstream ppm(arguments[2], std::ios::binary);
  std::string magic, maximum;
  ppm >> magic >> old_w >> old_h >> maximum;
  ppm.get();
  std::vector<unsigned char> photo(size_t(old_w) * old_h * 3);
  ppm.read(reinterpret_cast<char*>(photo.data()), photo.size());
  const int old[] = {old_h, old_w};
  double factor = std::min(double(std::max(scale[0], scale[1])) / std::max(old_h, old_w),
                           double(std::min(scale[0], scale[1])) / std::min(old_h, old_w));
  for (int i = 0; i < 2; i++)
    if (fixed[i]) factor = std::min(factor, double(fixed[i]) / old[i]);
  const int divisor = std::max(1, number("resize", "size_divisor"));
  for (int i = 0; i < 2; i++) {
    size[i] = fixed[i] ? fixed[i] : scale[i];
    if (number("resize", "keep_ratio")) size[i] = std::max(1, int(old[i] * factor + 0.5));
    const int least = number("resize", "pad") ? std::max(size[i], scale[i]) : size[i];
    padded[i] = fixed[i] ? fixed[i] : (least + divisor - 1) / divisor * divisor;
  }
  const size_t batch = std::max(1, number("input", "batch"));
  ov::Tensor images(ov::element::u8, {batch, size_t(padded[0]), size_t(padded[1]), 3});
  ov::Tensor sizes(ov::element::i64, {batch, 2});
  std::fill_n(images.data<uint8_t>(), images.get_size(), 0);
  uint8_t* pixels = images.data<uint8_t>();
  auto at = [&](int row, int column, int c) {
    row = std::clamp(row, 0, old_h - 1), column = std::clamp(column, 0, old_w - 1);
    return double(photo[(size_t(row) * old_w + column) * 3 + c]);
  };
  for (int y = 0; y < size[0]; y++)
    for (int x = 0; x < size[1]; x++) {  // the four nearest pixels, without smoothing
      const double v = (y + .5) * old_h / size[0] - .5, u = (x + .5) * old_w / size[1] - .5;
      const int row = std::floor(v), column = std::floor(u);
      const double down = v - row, right = u - column;
      for (int c = 0; c < 3; c++) {
        auto mix = [&](int r) { return at(r, column, c) * (1 - right) + at(r, column + 1, c) * right; };
        pixels[(size_t(y) * padded[1] + x) * 3 + c] = mix(row) * (1 - down) + mix(row + 1) * down + .5;
      }
    }
  const size_t bytes = images.get_size() / batch;
  for (size_t n = 0; n < batch; n++) {
    if (n) std::copy_n(pixels, bytes, pixels + n * bytes);
    std::copy_n(size, 2, sizes.data<int64_t>() + 2 * n);
  }
  const bool onnx = std::ifstream(folder + "/model.onnx").good();
  auto net = ov::Core().compile_model(folder + (onnx ? "/model.onnx" : "/model.xml"), "CPU",
                                      ov::hint::inference_precision(ov::element::f32));
  auto request = net.create_infer_request();
  request.set_tensor("images", images), request.set_tensor("sizes", sizes);
  request.infer();
  const auto boxes = request.get_tensor("boxes"), scores = request.get_tensor("scores");
  const auto labels = request.get_tensor("labels");
  for (size_t k = 0; k < scores.get_shape()[1]; k++) {
    const float score = scores.data<float>()[k], *box = boxes.data<float>() + 4 * k;
    const int label = labels.data<int64_t>()[k];
    if (label < 0 || score < std::stof(arguments[3])) continue;
    std::printf("%d %.3f", label, score);
    for (int i = 0; i < 4; i++) std::printf(" %.1f", box[i] * old[1 - i % 2] / size[1 - i % 2]);
    std::printf("\n");
  }
}
