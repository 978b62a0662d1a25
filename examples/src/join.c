/* join LEFT.ppm RIGHT.ppm: writes the two pictures side by side to standard output, as PNG. */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>

struct picture {
  FILE *file;
  unsigned width, height;
};

static struct picture open_picture(const char *name) {
  struct picture p;
  unsigned depth;
  p.file = fopen(name, "rb");
  if (!p.file || fscanf(p.file, "P6 %u %u %u", &p.width, &p.height, &depth) != 3 || depth != 255) {
    fprintf(stderr, "join: %s is not a PPM file with 8 bits per colour\n", name);
    exit(1);
  }
  fgetc(p.file);
  return p;
}

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: join LEFT.ppm RIGHT.ppm\n"), 2;
  struct picture left = open_picture(argv[1]), right = open_picture(argv[2]);
  if (left.height != right.height) return fprintf(stderr, "join: the pictures differ in height\n"), 1;

  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
  png_infop info = png ? png_create_info_struct(png) : NULL;
  unsigned char *row = malloc(3 * ((size_t)left.width + right.width));
  if (!info || !row || setjmp(png_jmpbuf(png))) return fprintf(stderr, "join: cannot write the picture\n"), 1;
  png_init_io(png, stdout);
  png_set_compression_level(png, 9);
  png_set_IHDR(png, info, left.width + right.width, left.height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png, info);
  for (unsigned r = 0; r < left.height; r++) {
    if (fread(row, 3, left.width, left.file) != left.width ||
        fread(row + 3 * left.width, 3, right.width, right.file) != right.width)
      return fprintf(stderr, "join: a picture is cut short\n"), 1;
    png_write_row(png, row);
  }
  png_write_end(png, info);
  return fflush(stdout) ? 1 : 0;
}
