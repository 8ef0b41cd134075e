/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define MIN_BAR 10
#define MAX_BAR 40
/* Columns of everything beside the bar: "Denoising  []  100 %  1000/1000  99:59 left  99999 MiB".
 */
#define TEXT_COLUMNS 58
#define DEFAULT_COLUMNS 80

struct _Progress {
  FILE *out;
  gboolean terminal, drawn;
  char *stage, *text; /* under way: "denoise", "Denoising"; NULL: nothing */
  gint64 start;
  gint64 clip; /* whose prompt was written last */
};

Progress *
progress_new(FILE *out)
{
  Progress *self = g_new0(Progress, 1);

  self->out = out;
  self->terminal = isatty(fileno(out));
  self->clip = -1;
  return self;
}

void
progress_clear(Progress *self)
{
  if (!self->drawn)
    return;
  fputs("\r\033[K", self->out);
  fflush(self->out);
  self->drawn = FALSE;
}

static void
forget_stage(Progress *self)
{
  progress_clear(self);
  g_clear_pointer(&self->stage, g_free);
  g_clear_pointer(&self->text, g_free);
}

void
progress_free(Progress *self)
{
  forget_stage(self);
  g_free(self);
}

static guint
bar_width(Progress *self)
{
  struct winsize size = { 0 };
  int columns = DEFAULT_COLUMNS;

  if (ioctl(fileno(self->out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    columns = size.ws_col;
  return (guint) CLAMP(columns - TEXT_COLUMNS, MIN_BAR, MAX_BAR);
}

static char *
format_time(double seconds)
{
  const guint s = (guint) (seconds + 0.5);

  if (seconds < 0)
    return g_strdup("-:--");
  if (s >= 3600)
    return g_strdup_printf("%u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
  return g_strdup_printf("%u:%02u", s / 60, s % 60);
}

/* @what: what stands behind the percentage. */
static void
draw(Progress *self, double percent, const char *what)
{
  const guint width = bar_width(self);
  const guint done = (guint) (CLAMP(percent, 0.0, 100.0) / 100.0 * width);
  char bar[MAX_BAR + 1];

  if (!self->terminal)
    return;
  memset(bar, ' ', width);
  memset(bar, '#', done);
  bar[width] = '\0';
  fprintf(self->out, "\r\033[K%-9s [%s] %3.0f %%  %s", self->text, bar, percent, what);
  fflush(self->out);
  self->drawn = TRUE;
}

static void
begin_stage(Progress *self, const char *stage, const char *text)
{
  forget_stage(self);
  self->stage = g_strdup(stage);
  self->text = g_strdup(text);
  self->start = g_get_monotonic_time();
  draw(self, 0.0, "");
}

static void
end_stage(Progress *self)
{
  if (!self->stage)
    return;
  progress_clear(self);
  fprintf(self->out, "%-9s %.1f s\n", self->text,
          (double) (g_get_monotonic_time() - self->start) / G_USEC_PER_SEC);
  forget_stage(self);
}

/* An element has a progress for each of its stages; opensorasrc has one for all of them, and says
 * in it which is under way. */
static void
on_progress(Progress *self, GstMessage *message)
{
  const char *part = gst_structure_get_string(gst_message_get_structure(message), "stage");
  g_autofree char *code = NULL;
  g_autofree char *text = NULL;
  GstProgressType type;
  const char *stage;

  gst_message_parse_progress(message, &type, &code, &text);
  stage = part ? part : code;
  /* Over in a moment, and done ahead while a clip is being denoised. */
  if (g_str_equal(stage, "text"))
    return;
  switch (type) {
  case GST_PROGRESS_TYPE_START:
    begin_stage(self, stage, text);
    break;
  case GST_PROGRESS_TYPE_CONTINUE:
    if (part && g_strcmp0(stage, self->stage) != 0) {
      end_stage(self);
      begin_stage(self, stage, text);
    }
    break;
  case GST_PROGRESS_TYPE_COMPLETE:
    if (g_strcmp0(stage, self->stage) == 0)
      end_stage(self);
    break;
  case GST_PROGRESS_TYPE_CANCELED:
  case GST_PROGRESS_TYPE_ERROR:
    forget_stage(self);
    break;
  }
}

static void
on_step(Progress *self, const GstStructure *s)
{
  const char *stage = gst_structure_get_string(s, "stage");
  const char *prompt = gst_structure_get_string(s, "prompt");
  double percent = 0.0, remaining = -1.0;
  guint step = 0, steps = 0, clip = 0;
  g_autofree char *what = NULL;
  g_autofree char *left = NULL;
  guint64 memory = 0;

  if (g_strcmp0(stage, self->stage) != 0)
    return;
  gst_structure_get(s, "clip", G_TYPE_UINT, &clip, "step", G_TYPE_UINT, &step, "steps", G_TYPE_UINT,
                    &steps, "percent", G_TYPE_DOUBLE, &percent, "remaining", G_TYPE_DOUBLE,
                    &remaining, "memory-allocated", G_TYPE_UINT64, &memory, NULL);
  if (self->clip != clip && prompt && *prompt) {
    progress_clear(self);
    fprintf(self->out, "Clip %u: %s\n", clip + 1, prompt);
    self->clip = clip;
  }
  left = format_time(remaining);
  if (g_str_equal(stage, "denoise"))
    what = g_strdup_printf("%u/%u  %s left  %" G_GUINT64_FORMAT " MiB", step, steps, left,
                           memory >> 20);
  else
    what = g_strdup_printf("%s left  %" G_GUINT64_FORMAT " MiB", left, memory >> 20);
  draw(self, percent, what);
}

void
progress_handle(Progress *self, GstMessage *message)
{
  const GstStructure *s;

  switch (GST_MESSAGE_TYPE(message)) {
  case GST_MESSAGE_PROGRESS:
    on_progress(self, message);
    break;
  case GST_MESSAGE_ELEMENT:
    s = gst_message_get_structure(message);
    if (s && gst_structure_has_name(s, "opensora-progress"))
      on_step(self, s);
    break;
  default:
    break;
  }
}
