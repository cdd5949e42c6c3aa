// The words of the page, in English and Chinese.

const en = {
  newChat: "New chat",
  search: "Search",
  conversations: "Conversations",
  noConversations: "No conversations yet",
  rename: "Rename",
  remove: "Delete",
  removed: "Conversation deleted",
  undo: "Undo",
  pin: "Pin",
  unpin: "Unpin",
  model: "Model",
  message: "Message",
  placeholder: "Ask anything",
  send: "Send",
  stop: "Stop",
  settings: "Settings",
  system: "System prompt",
  temperature: "Temperature",
  topP: "Top p",
  maxTokens: "Most tokens",
  unset: "model's default",
  close: "Close",
  edit: "Edit",
  again: "Generate again",
  copy: "Copy",
  copied: "Copied",
  previous: "Previous version",
  next: "Next version",
  details: "Details",
  reasoning: "Reasoning",
  thinking: "Thinking",
  you: "You",
  asking: "Asking",
  waiting: (ahead: number) => (ahead === 0 ? "Next in the queue" : `${ahead} ahead in the queue`),
  waitingForQuota: "Waiting for quota",
  comingBack: "Connection lost, coming back",
  stopped: "Stopped",
  failed: "No answer",
  tokens: (n: number, perS: string) => `${n} tokens${perS ? `, ${perS} a second` : ""}`,
  seed: "Seed",
  longer: "It ended at the most tokens",
  signIn: "Sign in",
  signOut: "Sign out",
  key: "API key",
  signInHint: "Enter an API key of this mesh, or sign in through your organization.",
  provider: "Sign in through your organization",
  hello: "What would you like to know?",
  notReady: "is being loaded",
  noModel: "No model of this mesh can chat",
  language: "中文",
  skip: "Skip to the message",
  cancel: "Cancel",
  save: "Save",
};

type Words = typeof en;

const zh: Words = {
  newChat: "新对话",
  search: "搜索",
  conversations: "对话",
  noConversations: "还没有对话",
  rename: "重命名",
  remove: "删除",
  removed: "对话已删除",
  undo: "撤销",
  pin: "置顶",
  unpin: "取消置顶",
  model: "模型",
  message: "消息",
  placeholder: "随便问点什么",
  send: "发送",
  stop: "停止",
  settings: "设置",
  system: "系统提示词",
  temperature: "温度",
  topP: "Top p",
  maxTokens: "最多词元数",
  unset: "模型默认值",
  close: "关闭",
  edit: "编辑",
  again: "重新生成",
  copy: "复制",
  copied: "已复制",
  previous: "上一个版本",
  next: "下一个版本",
  details: "详情",
  reasoning: "推理过程",
  thinking: "思考中",
  you: "你",
  asking: "正在提问",
  waiting: (ahead) => (ahead === 0 ? "排在队首" : `前面还有 ${ahead} 个请求`),
  waitingForQuota: "等待配额",
  comingBack: "连接中断，正在恢复",
  stopped: "已停止",
  failed: "没有得到回答",
  tokens: (n, perS) => `${n} 个词元${perS ? `，每秒 ${perS} 个` : ""}`,
  seed: "随机种子",
  longer: "已达到最多词元数",
  signIn: "登录",
  signOut: "退出登录",
  key: "API 密钥",
  signInHint: "请输入此服务的 API 密钥，或通过所在组织登录。",
  provider: "通过组织登录",
  hello: "想了解点什么？",
  notReady: "正在加载",
  noModel: "没有可以聊天的模型",
  language: "English",
  skip: "跳到消息框",
  cancel: "取消",
  save: "保存",
};

const LANGUAGE = "headrace.language";
const preferred = () =>
  localStorage.getItem(LANGUAGE) ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");

class Language {
  name = $state(preferred());
  words = $derived(this.name === "zh" ? zh : en);

  change(): void {
    this.name = this.name === "zh" ? "en" : "zh";
    localStorage.setItem(LANGUAGE, this.name);
    document.documentElement.lang = this.name;
  }
}

export const language = new Language();
