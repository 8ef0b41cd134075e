/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>
#include <string.h>

#include "aspect.h"
#include "error.h"
#include "prompts.h"

static GPtrArray *
parse(const char *data, gboolean csv)
{
  g_autoptr(GError) error = NULL;
  GPtrArray *prompts = osr_prompts_parse(data, -1, csv, "prompts", &error);

  g_assert_no_error(error);
  g_assert_nonnull(prompts);
  return prompts;
}

static void
assert_prompt(GPtrArray *prompts, guint i, const char *text, const char *neg, const char *ref)
{
  g_assert_cmpuint(i, <, prompts->len);
  const OsrPrompt *prompt = g_ptr_array_index(prompts, i);
  g_assert_cmpstr(prompt->text, ==, text);
  g_assert_cmpstr(prompt->neg, ==, neg);
  g_assert_cmpstr(prompt->ref, ==, ref);
}

static void
test_text(void)
{
  g_autoptr(GPtrArray) prompts = parse("\xef\xbb\xbf"
                                       "a red circle\r\n"
                                       "\n"
                                       "# a comment\n"
                                       "  \t \n"
                                       "  a \"blue\", square \n"
                                       "  # another\n"
                                       "\xc3\xa9toile\r"
                                       "the last, without a line end",
                                       FALSE);

  g_assert_cmpuint(prompts->len, ==, 4);
  assert_prompt(prompts, 0, "a red circle", NULL, NULL);
  assert_prompt(prompts, 1, "a \"blue\", square", NULL, NULL);
  assert_prompt(prompts, 2, "\xc3\xa9toile", NULL, NULL);
  assert_prompt(prompts, 3, "the last, without a line end", NULL, NULL);
}

static void
test_csv(void)
{
  g_autoptr(GPtrArray) prompts = parse("\xef\xbb\xbf"
                                       "id,text,ref,\"neg\"\r\n"
                                       "1,a red circle,,\r\n"
                                       "\r\n"
                                       "2,\"commas, and \"\"quotes\"\"\",a.png;b.png,blurry\n"
                                       "3,\"two\r\nlines\",  ,\"\"\n"
                                       "\"4\", spaces stay ,c.png,dark\n"
                                       "5,\"\"\"\",\",\",x",
                                       TRUE);

  g_assert_cmpuint(prompts->len, ==, 5);
  assert_prompt(prompts, 0, "a red circle", NULL, NULL);
  assert_prompt(prompts, 1, "commas, and \"quotes\"", "blurry", "a.png;b.png");
  assert_prompt(prompts, 2, "two\r\nlines", NULL, NULL);
  assert_prompt(prompts, 3, " spaces stay ", "dark", "c.png");
  assert_prompt(prompts, 4, "\"", "x", ",");
}

static void
test_csv_text_only(void)
{
  g_autoptr(GPtrArray) prompts = parse("text\na\nb\n\n\n", TRUE);
  g_autoptr(GPtrArray) comma = parse("ref,text,\n,a,", TRUE);

  g_assert_cmpuint(prompts->len, ==, 2);
  assert_prompt(prompts, 1, "b", NULL, NULL);
  g_assert_cmpuint(comma->len, ==, 1);
  assert_prompt(comma, 0, "a", NULL, NULL);
}

static void
test_bad(void)
{
  static const struct {
    gboolean csv;
    const char *data, *message;
  } cases[] = {
    { FALSE, "", "holds no prompt" },
    { FALSE, "\n# only this\n", "holds no prompt" },
    { FALSE, "good\nbad \xff\n", "line 2: byte 0xff" },
    { TRUE, "", "row 1: the header has no column \"text\"" },
    { TRUE, "\xef\xbb\xbf", "row 1: the header has no column \"text\"" },
    { TRUE, "prompt,ref\na,b\n", "row 1: the header has no column \"text\"" },
    { TRUE, "Text\na\n", "row 1: the header has no column \"text\"" },
    { TRUE, "text,ref,text\na,b,c\n", "row 1: two columns are named \"text\"" },
    { TRUE, "text,ref,ref\na,b,c\n", "row 1: two columns are named \"ref\"" },
    { TRUE, "text\n", "holds no prompt" },
    { TRUE, "text,ref\na,b\nc\n", "row 3: 1 fields, the header has 2" },
    { TRUE, "text,ref\na,b\n\nc,d,e\n", "row 4: 3 fields, the header has 2" },
    { TRUE, "text,ref\na,b\n,c\n", "row 3: the text is empty" },
    { TRUE, "text,ref\n\"two\nlines\",b\n\"  \",c\n", "row 3: the text is empty" },
    { TRUE, "text\na\n\"b\n", "row 3: a quoted field has no closing quote" },
    { TRUE, "text\n\"a\"\"", "row 2: a quoted field has no closing quote" },
    { TRUE, "text\n\"a\"b\n", "row 2: text after the closing quote" },
    { TRUE, "text\na \"b\"\n", "row 2: a quote inside a field" },
    { TRUE, "text\na\n\xc3(\n", "line 3: byte 0xc3" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_null(osr_prompts_parse(cases[i].data, -1, cases[i].csv, "prompts.x", &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
    g_autofree char *message = g_strconcat("prompts.x: ", cases[i].message, NULL);
    if (!g_str_has_prefix(error->message, message))
      g_assert_cmpstr(error->message, ==, message);
  }

  g_autoptr(GError) error = NULL;
  g_assert_null(osr_prompts_parse("a\0b", 3, FALSE, "prompts.x", &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
}

static void
test_read(void)
{
  static const char data[] = "text,ref\n\"a, b\",c.png\n";
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);

  static const struct {
    const char *name;
    gboolean csv;
  } files[] = { { "a.csv", TRUE }, { "A.CSV", TRUE }, { "a.txt", FALSE }, { "csv", FALSE } };
  for (guint i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *path = g_build_filename(folder, files[i].name, NULL);
    g_file_set_contents(path, data, -1, &error);
    g_assert_no_error(error);
    g_autoptr(GPtrArray) prompts = osr_prompts_read(path, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(prompts->len, ==, files[i].csv ? 1 : 2);
    assert_prompt(prompts, 0, files[i].csv ? "a, b" : "text,ref", NULL,
                  files[i].csv ? "c.png" : NULL);
    g_remove(path);
  }

  g_autofree char *missing = g_build_filename(folder, "missing.csv", NULL);
  g_assert_null(osr_prompts_read(missing, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_assert_nonnull(strstr(error->message, missing));
  g_clear_error(&error);
  g_assert_null(osr_prompts_read(folder, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  g_rmdir(folder);
}

/* What upstream's add_fps_info_to_text(fps=24) and add_motion_score_to_text(4) return. */
static void
test_decorate(void)
{
  static const struct {
    const char *text, *decorated;
  } cases[] = {
    { "a red circle", "a red circle. 24 FPS. 4 motion score." },
    { "a red circle.", "a red circle. 24 FPS. 4 motion score." },
    { "  a red circle \012", "a red circle. 24 FPS. 4 motion score." },
    { "", ". 24 FPS. 4 motion score." },
    { "   ", ". 24 FPS. 4 motion score." },
    { ".", ". 24 FPS. 4 motion score." },
    { "a...", "a... 24 FPS. 4 motion score." },
    { "ends with 24 FPS.", "ends with 24 FPS. 4 motion score." },
    { "ends with 24 FPS", "ends with 24 FPS. 4 motion score." },
    { "ends with FPS.", "ends with FPS. 24 FPS. 4 motion score." },
    { "x5 FPS.", "x5 FPS. 4 motion score." },
    { "5 FPS. ", "5 FPS. 4 motion score." },
    { "\331\243 FPS.", "\331\243 FPS. 4 motion score." },
    { "24 fps.", "24 fps. 24 FPS. 4 motion score." },
    { "24  FPS.", "24  FPS. 24 FPS. 4 motion score." },
    { "24 FPS. and more", "24 FPS. and more. 24 FPS. 4 motion score." },
    { "\343\200\200blue\302\240", "blue. 24 FPS. 4 motion score." },
    { "\034star\037", "star. 24 FPS. 4 motion score." },
    { "tab\011here", "tab\011here. 24 FPS. 4 motion score." },
    { "12 FPS..", "12 FPS.. 24 FPS. 4 motion score." },
    { "\303\251 FPS.", "\303\251 FPS. 24 FPS. 4 motion score." },
    { "24\302\240FPS.", "24\302\240FPS. 24 FPS. 4 motion score." },
    { "a\342\200\213", "a\342\200\213. 24 FPS. 4 motion score." },
    { "\302\275 FPS.", "\302\275 FPS. 24 FPS. 4 motion score." },
    { "a 7 motion score.", "a 7 motion score. 24 FPS. 4 motion score." },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *decorated = osr_prompt_decorate(cases[i].text, 24, 4);
    g_assert_cmpstr(decorated, ==, cases[i].decorated);
  }

  static const struct {
    guint fps, motion_score;
    const char *decorated;
  } parts[] = {
    { 0, 0, "a star." },
    { 16, 0, "a star. 16 FPS." },
    { 0, 7, "a star. 7 motion score." },
  };
  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *decorated =
        osr_prompt_decorate(" a star ", parts[i].fps, parts[i].motion_score);
    g_assert_cmpstr(decorated, ==, parts[i].decorated);
  }

  /* Not UTF-8: handed on as it is. */
  g_autofree char *bad = osr_prompt_decorate(" \xe2\x80", 24, 4);
  g_assert_cmpstr(bad, ==, " \xe2\x80");
}

/* From upstream's get_image_size(training=False), sizes rounded up to multiples of 16. */
static const char *const table_ratios[] = { "2.39:1", "2:1",    "16:9", "1.85:1", "9:16",
                                            "5:8",    "3:2",    "4:3",  "1:1",    "1:2.39",
                                            "1:2",    "1:1.85", "8:5",  "2:3",    "3:4" };
/* width, height */
static const struct {
  const char *resolution;
  guint16 sizes[15][2];
} table[] = {
  { "128px",
    { { 192, 80 },
      { 176, 80 },
      { 160, 96 },
      { 160, 96 },
      { 96, 160 },
      { 96, 160 },
      { 144, 112 },
      { 144, 112 },
      { 128, 128 },
      { 80, 192 },
      { 80, 176 },
      { 96, 160 },
      { 160, 96 },
      { 112, 144 },
      { 112, 144 } } },
  { "144p",
    { { 288, 128 },
      { 256, 144 },
      { 256, 144 },
      { 256, 144 },
      { 144, 256 },
      { 144, 256 },
      { 224, 160 },
      { 208, 176 },
      { 192, 192 },
      { 128, 288 },
      { 144, 256 },
      { 144, 256 },
      { 256, 144 },
      { 160, 224 },
      { 176, 208 } } },
  { "240p",
    { { 480, 208 },
      { 448, 224 },
      { 416, 240 },
      { 432, 224 },
      { 240, 416 },
      { 240, 416 },
      { 384, 256 },
      { 368, 272 },
      { 320, 320 },
      { 208, 480 },
      { 224, 448 },
      { 224, 432 },
      { 416, 240 },
      { 256, 384 },
      { 272, 368 } } },
  { "256px",
    { { 384, 160 },
      { 352, 176 },
      { 336, 192 },
      { 336, 192 },
      { 192, 336 },
      { 192, 336 },
      { 304, 208 },
      { 288, 224 },
      { 256, 256 },
      { 160, 384 },
      { 176, 352 },
      { 192, 336 },
      { 336, 192 },
      { 208, 304 },
      { 224, 288 } } },
  { "360p",
    { { 736, 304 },
      { 672, 336 },
      { 640, 352 },
      { 640, 352 },
      { 352, 640 },
      { 368, 624 },
      { 576, 400 },
      { 544, 416 },
      { 480, 480 },
      { 304, 736 },
      { 336, 672 },
      { 352, 640 },
      { 624, 368 },
      { 400, 576 },
      { 416, 544 } } },
  { "480p",
    { { 976, 416 },
      { 896, 448 },
      { 848, 480 },
      { 864, 464 },
      { 480, 848 },
      { 496, 816 },
      { 768, 528 },
      { 736, 544 },
      { 640, 640 },
      { 416, 976 },
      { 448, 896 },
      { 464, 864 },
      { 816, 496 },
      { 528, 768 },
      { 544, 736 } } },
  { "512px",
    { { 784, 320 },
      { 720, 352 },
      { 672, 384 },
      { 688, 368 },
      { 384, 672 },
      { 400, 640 },
      { 624, 416 },
      { 576, 448 },
      { 512, 512 },
      { 320, 784 },
      { 352, 720 },
      { 368, 688 },
      { 640, 400 },
      { 416, 624 },
      { 448, 576 } } },
  { "720p",
    { { 1472, 624 },
      { 1344, 672 },
      { 1280, 720 },
      { 1296, 704 },
      { 720, 1280 },
      { 752, 1216 },
      { 1168, 784 },
      { 1104, 832 },
      { 960, 960 },
      { 624, 1472 },
      { 672, 1344 },
      { 704, 1296 },
      { 1216, 752 },
      { 784, 1168 },
      { 832, 1104 } } },
  { "768px",
    { { 1184, 496 },
      { 1072, 544 },
      { 1024, 576 },
      { 1040, 560 },
      { 576, 1024 },
      { 592, 992 },
      { 928, 624 },
      { 880, 656 },
      { 768, 768 },
      { 496, 1184 },
      { 544, 1072 },
      { 560, 1040 },
      { 992, 592 },
      { 624, 928 },
      { 656, 880 } } },
  { "1024px",
    { { 1568, 656 },
      { 1440, 720 },
      { 1360, 768 },
      { 1392, 752 },
      { 768, 1360 },
      { 800, 1296 },
      { 1248, 832 },
      { 1168, 896 },
      { 1024, 1024 },
      { 656, 1568 },
      { 720, 1440 },
      { 752, 1392 },
      { 1296, 800 },
      { 832, 1248 },
      { 896, 1168 } } },
  { "1080p",
    { { 2224, 928 },
      { 2032, 1008 },
      { 1920, 1072 },
      { 1952, 1056 },
      { 1072, 1920 },
      { 1136, 1824 },
      { 1760, 1168 },
      { 1648, 1248 },
      { 1440, 1440 },
      { 928, 2224 },
      { 1008, 2032 },
      { 1056, 1952 },
      { 1824, 1136 },
      { 1168, 1760 },
      { 1248, 1648 } } },
};

static void
test_aspect_table(void)
{
  const char *const *ratios = osr_aspect_ratios();

  for (guint i = 0; i < G_N_ELEMENTS(table_ratios); i++)
    g_assert_cmpstr(ratios[i], ==, table_ratios[i]);
  g_assert_null(ratios[G_N_ELEMENTS(table_ratios)]);

  for (guint r = 0; r < G_N_ELEMENTS(table); r++) {
    for (guint i = 0; i < G_N_ELEMENTS(table_ratios); i++) {
      g_autoptr(GError) error = NULL;
      guint width = 0, height = 0;
      g_assert_true(osr_aspect_size(table[r].resolution, table_ratios[i], &width, &height, &error));
      g_assert_no_error(error);
      g_assert_cmpuint(width, ==, table[r].sizes[i][0]);
      g_assert_cmpuint(height, ==, table[r].sizes[i][1]);
    }
  }
}

/* All sizes from 32px and 32p to 2199px and 2199p: FNV-1a over widths and heights as 32-bit
 * little-endian words, made with upstream's get_image_size(). 1:1 is not always a square: 139p is
 * 192 x 176. */
static void
test_aspect_all(void)
{
  guint32 hash = 0x811c9dc5;

  for (guint size = 32; size < 2200; size++) {
    for (guint unit = 0; unit < 2; unit++) {
      g_autofree char *resolution = g_strdup_printf("%u%s", size, unit ? "p" : "px");

      for (guint i = 0; i < G_N_ELEMENTS(table_ratios); i++) {
        guint sides[2];

        g_assert_true(osr_aspect_size(resolution, table_ratios[i], &sides[0], &sides[1], NULL));
        for (guint byte = 0; byte < 8; byte++)
          hash = (hash ^ (sides[byte / 4] >> byte % 4 * 8 & 0xff)) * 0x01000193;
      }
    }
  }
  g_assert_cmphex(hash, ==, 0xbae182a8);
}

static void
test_aspect_bad(void)
{
  static const struct {
    const char *resolution, *ratio, *message;
  } cases[] = {
    { "256px", "16:10", "known are 2.39:1, 2:1, 16:9" },
    { "256px", "", "Unknown aspect ratio \"\"" },
    { "", "1:1", "Resolution \"\"" },
    { "256", "1:1", "Resolution \"256\"" },
    { "px", "1:1", "Resolution" },
    { "256pixels", "1:1", "Resolution" },
    { "-256px", "1:1", "Resolution" },
    { " 256px", "1:1", "Resolution" },
    { "0px", "1:1", "Resolution" },
    { "15px", "1:1", "Resolution" },
    { "8193px", "1:1", "Resolution" },
    { "18446744073709551616px", "1:1", "Resolution" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    guint width = 0, height = 0;
    g_assert_false(osr_aspect_size(cases[i].resolution, cases[i].ratio, &width, &height, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull(strstr(error->message, cases[i].message));
  }
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/prompts/text", test_text);
  g_test_add_func("/prompts/csv", test_csv);
  g_test_add_func("/prompts/csv-text-only", test_csv_text_only);
  g_test_add_func("/prompts/bad", test_bad);
  g_test_add_func("/prompts/read", test_read);
  g_test_add_func("/prompts/decorate", test_decorate);
  g_test_add_func("/aspect/table", test_aspect_table);
  g_test_add_func("/aspect/all", test_aspect_all);
  g_test_add_func("/aspect/bad", test_aspect_bad);
  return g_test_run();
}
