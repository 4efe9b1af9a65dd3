"""How the page looks, and the little that the browser does by itself."""

from __future__ import annotations

STYLE = """
.gradio-container { max-width: 1240px !important; width: 100% !important; margin: 0 auto !important;
  background: #f6f7f8 }
body, gradio-app { background: #f6f7f8 !important }
.gradio-container .html-container { padding: 0 !important }
.fm-head { display: flex; align-items: baseline; gap: 14px; flex-wrap: wrap; padding: 2px 2px 6px }
.fm-head b { font-size: 24px; line-height: 1.3; color: #1f2933; overflow-wrap: anywhere }
.fm-quiet { color: #52606d }
.fm-sub { font-size: 17px; font-weight: 600; color: #1f2933; padding: 2px }
.fm-row { align-items: flex-end !important; flex-wrap: wrap }
.fm-row .form { background: none !important; border: 0 !important; box-shadow: none !important; overflow: visible }
.fm-row .block { border: 0 !important; padding: 0 !important; background: none !important; box-shadow: none !important;
  overflow: visible !important }
.fm-row button.lg { min-height: 42px; padding-top: 6px; padding-bottom: 6px; font-size: 15px; font-weight: 500 }
button.stop { color: #8a1c12 !important; background: #fdecea !important; border: 1px solid #f5c2bc !important }

.fm-drop { display: flex; flex-direction: column; align-items: center; justify-content: center; gap: 6px;
  min-height: 260px; border: 2px dashed #9fb3c8; border-radius: 12px; background: #fff; color: #52606d;
  text-align: center; cursor: pointer; padding: 12px; position: relative; overflow: hidden }
.fm-drop b { color: #0f766e; font-size: 18px }
.fm-drop.fm-over, .fm-drop:focus-within { border-color: #0f766e; background: #f0fdfa }
.fm-drop input { position: absolute; opacity: 0; left: 0; top: 0; width: 1px; height: 1px }
.fm-drop img { max-width: 100%; max-height: 290px; border-radius: 8px; display: block; margin: 0 }
.fm-drop.fm-busy { pointer-events: none; border-style: solid; animation: fm-wait 1s ease-in-out infinite alternate }
@keyframes fm-wait { to { opacity: .45 } }

.fm-card { background: #fff; border: 1px solid #e1e5e9; border-radius: 12px; padding: 16px 18px; min-height: 260px }
.fm-card h2 { margin: 0 0 4px; font-size: 25px; line-height: 1.25; overflow-wrap: anywhere; color: #0f766e }
.fm-card h2.fm-none { color: #6b7280 }
.fm-card p { margin: 2px 0; color: #52606d; font-size: 14px; line-height: 1.45 }
.fm-bars { display: grid; grid-template-columns: minmax(90px, 1.6fr) 2fr auto; gap: 7px 10px; align-items: center;
  margin-top: 14px; font-size: 14px; color: #1f2933 }
.fm-bars span { overflow-wrap: anywhere; line-height: 1.25 }
.fm-bars i { display: block; height: 10px; border-radius: 5px; background: #eef1f3; overflow: hidden }
.fm-bars i b { display: block; height: 10px; border-radius: 5px }
.fm-bars em { font-style: normal; text-align: right; font-variant-numeric: tabular-nums }
.fm-note { border-radius: 8px; padding: 9px 13px; background: #e6f5f2; color: #134e48; border: 1px solid #b7e0d8;
  overflow-wrap: anywhere }
.fm-note.fm-bad { background: #fdecea; color: #8a1c12; border-color: #f5c2bc }
.fm-why { width: 100%; height: 900px; border: 0; background: #f6f7f8; display: block }
.fm-empty { display: grid; place-items: center; min-height: 260px; color: #616e7c; text-align: center;
  border: 1px solid #e1e5e9; border-radius: 12px; padding: 24px; background: #fff }

.fm-classes { display: flex; flex-direction: column; gap: 6px; max-height: 76vh; overflow-y: auto; padding: 2px }
.fm-classes button { display: flex; gap: 12px; align-items: center; text-align: left; border: 1px solid #e1e5e9;
  border-radius: 10px; background: #fff; padding: 6px 10px 6px 6px; cursor: pointer; font: inherit; color: #1f2933;
  width: 100%; flex: none; box-shadow: none }
.fm-classes button:hover, .fm-photos button:hover { border-color: #0f766e }
.fm-classes button[aria-pressed=true] { border-color: #0f766e; background: #f0fdfa;
  box-shadow: inset 0 0 0 1px #0f766e }
.fm-classes img { width: 52px; height: 52px; object-fit: cover; border-radius: 6px; flex: none; margin: 0 }
.fm-classes b { font-weight: 600; overflow-wrap: anywhere; display: block; line-height: 1.25 }
.fm-classes small { color: #52606d }
.fm-photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(124px, 1fr)); gap: 12px; align-items: start;
  padding: 2px }
.fm-photos button { position: relative; border: 1px solid #e1e5e9; border-radius: 10px; padding: 0; background: #fff;
  cursor: pointer; overflow: hidden; font: inherit; box-shadow: none }
.fm-photos img { width: 100%; aspect-ratio: 1; object-fit: cover; display: block; margin: 0 }
.fm-photos small { display: block; padding: 4px 8px; color: #52606d; text-align: left }
.fm-photos button[aria-pressed=true] { border-color: #c2410c; box-shadow: 0 0 0 2px #c2410c }
.fm-photos button[aria-pressed=true]::after { content: "✓"; position: absolute; top: 6px; right: 6px; width: 24px;
  height: 24px; line-height: 24px; border-radius: 50%; background: #c2410c; color: #fff; text-align: center }
"""

# Runs once, when the place for photos is shown; pieces inside it may come and go.
DROP_SCRIPT = """
const send = async (file) => {
  const zone = element.querySelector('.fm-drop');
  if (!file || zone.classList.contains('fm-busy')) return;
  zone.classList.add('fm-busy');
  let found;
  try {
    const form = new FormData();
    form.append('image', file, 'photo');
    const answer = await fetch('api/predict?top=1', {method: 'POST', body: form});
    found = await answer.json();
  } catch (problem) { found = {error: 'The server cannot be reached; is it still running?'}; }
  zone.classList.remove('fm-busy');
  trigger('upload', {photo: found.photo || '', error: found.error || ''});
};
const mark = (event, on) => {
  event.preventDefault(); element.querySelector('.fm-drop').classList.toggle('fm-over', on);
};
element.addEventListener('dragover', (event) => mark(event, true));
element.addEventListener('dragleave', (event) => mark(event, false));
element.addEventListener('drop', (event) => { mark(event, false); send(event.dataTransfer.files[0]); });
element.addEventListener('change', (event) => { send(event.target.files[0]); event.target.value = ''; });
document.addEventListener('paste', (event) => {
  const file = [...(event.clipboardData || {files: []}).files].find((one) => one.type.startsWith('image/'));
  if (file && element.offsetParent) send(file);
});
"""

PICK_SCRIPT = """
element.addEventListener('click', (event) => {
  const one = event.target.closest('[data-id]');
  if (one) trigger('select', {id: Number(one.dataset.id)});
});
"""
