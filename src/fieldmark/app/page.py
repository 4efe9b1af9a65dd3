"""The web page: "What is this?" for a photo, "Gallery" for what is enrolled.

Photos go from the browser to ``/api/predict`` and thumbnails come by their number, so Gradio neither takes nor serves a
file; it draws the page and carries its events.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fieldmark.app import look, parts
from fieldmark.app.service import Added, Service
from fieldmark.errors import FieldmarkError, MissingExtraError

if TYPE_CHECKING:
    from fastapi import FastAPI

_MOST_SHOWN = 240  # photos of a class at a time
_ASKS = "The answer, how sure it is, and why, come here."
_CHOOSE = "Choose a class."


def add_page(app: "FastAPI", service: Service) -> Any:
    """The application with the page at ``/``.

    Args:
        app: The API.
        service: The gallery.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    # Nothing is told to anybody, and nothing is fetched: neither usage, nor versions, nor fonts.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError:
        raise MissingExtraError("gradio", "app", "the web page") from None

    fonts = ["system-ui", "Segoe UI", "Helvetica Neue", "sans-serif"]
    theme = gradio.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=fonts, font_mono=["ui-monospace", "monospace"]
    ).set(button_primary_background_fill="#0f766e", button_primary_background_fill_hover="#115e59")
    return gradio.mount_gradio_app(
        app, _Page(gradio, service).blocks, path="/", theme=theme, css=look.STYLE, footer_links=[], run_history=False,
        allowed_paths=[], show_error=False, ssr_mode=False, mcp_server=False, enable_monitoring=False, pwa=False,
        # One look, also where the browser prefers a dark one: the evidence is drawn for a light ground.
        js="() => { document.body.classList.remove('dark') }",
    )  # fmt: skip


class _Page:
    """Components and what they do; what is remembered between events is in the browser's session."""

    def __init__(self, gradio: Any, service: Service) -> None:
        self.gr, self.service = gradio, service
        self.changes = not service.read_only
        # Gradio hands over the event where an annotation asks for it, and its class is known only now.
        for method in (_Page.show_answer, _Page.choose_class, _Page.mark_photo):
            method.__annotations__["event"] = gradio.EventData
        with gradio.Blocks(
            fill_width=True, title=f"{service.name} · fieldmark", analytics_enabled=False
        ) as self.blocks:
            self.head = gradio.HTML(self._heading(), js_on_load=None)
            self.key, self.chosen, self.marked = gradio.State(""), gradio.State(None), gradio.State([])
            with gradio.Tab("What is this?", id="ask"):
                self._build_asking()
            with gradio.Tab("Gallery", id="gallery") as self.gallery_tab:
                self._build_gallery()
            self._connect()

    def _build_asking(self) -> None:
        gr = self.gr
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=300):
                self.drop = gr.HTML(parts.drop_place(), js_on_load=look.DROP_SCRIPT, elem_id="drop")
                self.told = gr.HTML(js_on_load=None, elem_id="told")
            with gr.Column(scale=4, min_width=300):
                self.answer = gr.HTML(parts.empty(_ASKS), js_on_load=None, elem_id="answer")
            with gr.Column(scale=4, min_width=300, visible=False) as self.feedback:
                gr.HTML(parts.subtitle("Is that right?"), js_on_load=None)
                self.yes = gr.Button("Yes, add it", variant="primary", elem_id="yes")
                with gr.Row(elem_classes="fm-row"):
                    self.other = gr.Dropdown([], label="No, it is", elem_id="other", scale=3, min_width=150)
                    self.add = gr.Button("Add it there", elem_id="add", scale=2, min_width=110)
                with gr.Row(elem_classes="fm-row"):
                    self.name = self._line("No, it is a new class", "name", "its name")
                    self.create = gr.Button("Create it", elem_id="create", scale=2, min_width=110)
        self.why = gr.HTML(js_on_load=None, elem_id="why")

    def _build_gallery(self) -> None:
        gr = self.gr
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                self.filter = gr.Textbox(
                    show_label=False, placeholder="find a class", max_lines=1, elem_id="filter", container=False
                )
                self.classes = gr.HTML(js_on_load=look.PICK_SCRIPT, elem_id="classes")
            with gr.Column(scale=3, min_width=380):
                self.title = gr.HTML(js_on_load=None, elem_id="title")
                self.photos = gr.HTML(parts.empty(_CHOOSE), js_on_load=look.PICK_SCRIPT, elem_id="photos")
                with gr.Row(visible=False, elem_classes="fm-row") as self.photo_tools:
                    self.target = gr.Dropdown(
                        [], label="Put the marked photos into", allow_custom_value=True, elem_id="target", scale=3
                    )
                    self.move = self._button("Move them", "move")
                    self.drop_photos = self._button("Remove them", "drop_photos", "stop")
                with gr.Row(visible=False, elem_classes="fm-row") as self.class_tools:
                    self.new_name = self._line("Name of the class", "new_name")
                    self.rename = self._button("Rename", "rename")
                    self.ask_remove = self._button("Remove the class", "ask_remove", "stop")
                with gr.Row(visible=False, elem_classes="fm-row") as self.sure:
                    self.really = self._button("Really remove it with all its photos", "really", "stop")
                    self.keep = self._button("Keep it", "keep")

    def _line(self, label: str, name: str, hint: str = "") -> Any:
        return self.gr.Textbox(label=label, placeholder=hint, max_lines=1, elem_id=name, scale=3, min_width=150)

    def _button(self, text: str, name: str, variant: str = "secondary") -> Any:
        return self.gr.Button(text, variant=variant, elem_id=name, scale=1, min_width=120)

    def _connect(self) -> None:
        hidden = {"api_visibility": "private", "show_progress": "hidden"}
        asked = [self.key, self.drop, self.answer, self.why, self.feedback, self.yes, self.other, self.name, self.told]
        after = [*asked, self.head]
        self.drop.upload(self.show_answer, None, asked, **hidden)
        self.yes.click(self.add_to_nearest, self.key, after, **hidden)
        self.add.click(self.add_to_other, [self.key, self.other], after, **hidden)
        for event in (self.create.click, self.name.submit):
            event(self.add_to_new, [self.key, self.name], after, **hidden)
        listed = [self.head, self.classes]
        view = [*listed, self.chosen, self.marked, self.title, self.photos, self.photo_tools, self.class_tools,
                self.sure, self.new_name, self.target]  # fmt: skip
        here = [self.chosen, self.filter]
        self.blocks.load(self.list_classes, here, listed, **hidden)
        self.gallery_tab.select(self.open_gallery, here, view, **hidden)
        self.filter.change(self.list_classes, here, listed, **hidden)
        self.classes.select(self.choose_class, self.filter, view, **hidden)
        self.photos.select(
            self.mark_photo, [self.chosen, self.marked], [self.marked, self.photos, self.photo_tools], **hidden
        )
        self.move.click(self.move_photos, [*here, self.marked, self.target], view, **hidden)
        self.drop_photos.click(self.remove_photos, [*here, self.marked], view, **hidden)
        for event in (self.rename.click, self.new_name.submit):
            event(self.rename_class, [*here, self.new_name], view, **hidden)
        self.ask_remove.click(lambda: self.gr.update(visible=True), None, self.sure, **hidden)
        self.keep.click(lambda: self.gr.update(visible=False), None, self.sure, **hidden)
        self.really.click(self.remove_class, here, view, **hidden)

    # What is this?

    def show_answer(self, event: Any) -> dict[Any, Any]:
        """After a photo was sent, or could not be."""
        sent = event._data if isinstance(event._data, dict) else {}
        if sent.get("error"):
            return {self.told: parts.note(str(sent["error"])[:400], bad=True)}
        return self._answer(str(sent.get("photo", "")))

    def add_to_nearest(self, key: str) -> dict[Any, Any]:
        """The answer is right: the photo becomes one of its class."""

        def add() -> Added:
            held = self.service.held(key)
            return self.service.add(self._number_of(str(self.service.predict(held)[0].top[0][0])), held)

        return self._change(key, add)

    def add_to_other(self, key: str, class_id: Any) -> dict[Any, Any]:
        """The answer is wrong: the photo becomes one of another class."""

        def add() -> Added:
            if not isinstance(class_id, int):
                raise FieldmarkError("choose the class first")
            return self.service.add(class_id, self.service.held(key))

        return self._change(key, add)

    def add_to_new(self, key: str, name: str) -> dict[Any, Any]:
        """A new class begins with the photo."""
        return self._change(key, lambda: self.service.create(name or "", self.service.held(key)))

    def _change(self, key: str, add: Callable[[], Added]) -> dict[Any, Any]:
        try:
            done = add()
        except FieldmarkError as error:
            return {self.told: parts.note(str(error), bad=True)}
        text = f"Added to {done.photo.class_name!r} as photo {done.photo.id}." if done.new else (
            f"This photo is in {done.photo.class_name!r} already, as photo {done.photo.id}.")  # fmt: skip
        # The answer stays as it was: asked again, the photo would only be found to be like itself.
        return {
            self.told: parts.note(" ".join([text, *done.notes])), self.head: self._heading(),
            self.feedback: self.gr.update(visible=False), self.name: "",
        }  # fmt: skip

    def _answer(self, key: str) -> dict[Any, Any]:
        gr = self.gr
        try:
            held = self.service.held(key)
            found, line = self.service.predict(held)
            classes = self.service.classes()
            version = self.service.version
        except FieldmarkError as error:
            return {self.told: parts.note(str(error), bad=True)}
        try:
            self.service.explain(held)
            why = parts.evidence_frame(key, version)
        except FieldmarkError as error:
            why = parts.empty(str(error))
        return {
            self.key: key, self.drop: parts.drop_place(key), self.answer: parts.answer_card(found, line), self.why: why,
            self.feedback: gr.update(visible=self.changes),
            self.yes: gr.update(value=f"Yes, add it to “{found.top[0][0]}”"),
            self.other: gr.update(choices=[(one.name, one.id) for one in classes], value=None),
            self.name: "", self.told: "",
        }  # fmt: skip

    # Gallery

    def list_classes(self, chosen: Any, find: str) -> dict[Any, Any]:
        """The classes whose names hold what is typed."""
        classes = [one for one in self.service.classes() if (find or "").casefold().strip() in one.name.casefold()]
        return {self.head: self._heading(), self.classes: parts.class_list(classes, self.service.covers(), chosen)}

    def open_gallery(self, chosen: Any, find: str) -> dict[Any, Any]:
        """The gallery comes into view; while nothing is chosen, a class that is clicked meanwhile stays chosen."""
        return self.list_classes(None, find) if chosen is None else self.show_class(chosen, find)

    def choose_class(self, find: str, event: Any) -> dict[Any, Any]:
        """A class was clicked."""
        return self.show_class(_number(event), find)

    def show_class(self, chosen: Any, find: str, said: str = "", bad: bool = False) -> dict[Any, Any]:
        """The photos of the chosen class, and what can be done with it."""
        gr = self.gr
        classes, told = self.service.classes(), parts.note(said, bad) if said else ""
        one = next((one for one in classes if one.id == chosen), None)
        out = self.list_classes(one and one.id, find) | {
            self.chosen: one and one.id, self.marked: [], self.photo_tools: gr.update(visible=False),
            self.sure: gr.update(visible=False), self.class_tools: gr.update(visible=one is not None and self.changes),
        }  # fmt: skip
        if one is None:
            return out | {self.title: told, self.photos: parts.empty(_CHOOSE)}
        photos = self.service.photos(one.id)
        return out | {
            self.title: parts.title(one.name, len(photos)) + told,
            self.photos: parts.photo_grid(photos[:_MOST_SHOWN], []),
            self.new_name: one.name,
            self.target: gr.update(choices=[other.name for other in classes if other.id != one.id], value=None),
        }

    def mark_photo(self, chosen: Any, marked: list[int], event: Any) -> dict[Any, Any]:
        """A photo was clicked: marked, or no longer."""
        number = _number(event)
        marked = [one for one in marked if one != number] if number in marked else [*marked, number]
        photos = self.service.photos(chosen)[:_MOST_SHOWN]
        marked = [one.id for one in photos if one.id in marked]
        return {
            self.marked: marked, self.photos: parts.photo_grid(photos, marked),
            self.photo_tools: self.gr.update(visible=bool(marked) and self.changes),
        }  # fmt: skip

    def move_photos(self, chosen: Any, find: str, marked: list[int], target: Any) -> dict[Any, Any]:
        """The marked photos go into another class."""

        def move() -> str:
            for photo in marked:
                self.service.move(photo, target or "")
            return f"{len(marked)} moved to {target!r}."

        return self._do(chosen, find, move)

    def remove_photos(self, chosen: Any, find: str, marked: list[int]) -> dict[Any, Any]:
        """The marked photos go."""

        def remove() -> str:
            for photo in marked:
                self.service.remove_photo(photo)
            return f"{len(marked)} removed."

        return self._do(chosen, find, remove)

    def rename_class(self, chosen: Any, find: str, name: str) -> dict[Any, Any]:
        """The chosen class gets another name."""
        return self._do(chosen, find, lambda: f"It is called {self.service.rename(chosen, name or '').name!r} now.")

    def remove_class(self, chosen: Any, find: str) -> dict[Any, Any]:
        """The chosen class goes, with its photos."""
        return self._do(chosen, find, lambda: f"Removed, with {self.service.remove_class(chosen)} photos.")

    def _do(self, chosen: Any, find: str, change: Callable[[], str]) -> dict[Any, Any]:
        try:
            return self.show_class(chosen, find, change())
        except FieldmarkError as error:
            return self.show_class(chosen, find, str(error), bad=True)

    def _heading(self) -> str:
        facts = self.service.describe()
        return parts.heading(facts["name"], facts["photos"], facts["classes"], facts["read_only"])

    def _number_of(self, name: str) -> int:
        return next(one.id for one in self.service.classes() if one.name == name)


def _number(event: Any) -> int:
    found = event._data.get("id") if isinstance(event._data, dict) else None
    return found if isinstance(found, int) else 0
